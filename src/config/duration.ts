import { z } from 'zod';

const UNITS_MS = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);

/** Far beyond any use, and near enough that a time plus a duration is still a time. */
const DURATION_DAYS_MAX = 36_500;

/** A duration with its unit, such as `30d`, `12h`, `5m`, `30s` or `500ms`, as milliseconds. Only 0 needs no unit. */
export function durationMs({ positive }: { positive: boolean }): z.ZodType<number> {
  const expected = positive
    ? `a duration above 0 such as 30d, 12h, 5m or 30s, at most ${DURATION_DAYS_MAX}d`
    : `a duration such as 30d, 12h, 5m, 30s or 0s, at most ${DURATION_DAYS_MAX}d`;
  return z.transform((input: unknown, context) => {
    const ms = parseDurationMs(input);
    if (ms !== undefined && (ms > 0 || !positive)) return ms;
    context.issues.push({ code: 'custom', input, message: expected });
    return z.NEVER;
  });
}

function parseDurationMs(input: unknown): number | undefined {
  if (input === 0 || input === '0') return 0;
  const [, count, unit] = /^(\d{1,15})(ms|[smhd])$/.exec(typeof input === 'string' ? input : '') ?? [];
  const ms = Number(count) * (UNITS_MS.get(unit ?? '') ?? NaN);
  return ms <= DURATION_DAYS_MAX * 86_400_000 ? ms : undefined;
}
