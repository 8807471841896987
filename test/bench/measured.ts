/** Figures of rounds, and how they are compared: within a round, so that a machine whose speed drifts does not matter. */
import { quantile } from './report.js';

/** A figure of each round. */
export type Series = readonly number[];

/** What a scenario came to: a table with its heading, what it says of the figures to reach, and bars for the chart. */
export interface Section {
  readonly title: string;
  /** How it was measured, in sentences. */
  readonly text: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly goals: readonly Goal[];
  readonly bars: readonly Bar[];
}

export interface Goal {
  readonly what: string;
  readonly goal: string;
  readonly reached: string;
  readonly met: boolean;
}

/** Keys verified a second. */
export interface Bar {
  readonly what: string;
  readonly perSecond: number;
  /** Whether it is Keyreeve's own. */
  readonly own: boolean;
}

/** Of those of one and the same scenario; what a round measured of both. */
export function ratiosOf(series: Series, others: Series): number[] {
  return series.map((one, round) => one / (others[round] ?? Number.NaN));
}

export function median(series: Series): number {
  return quantile(series, 0.5);
}

/** The median of a ratio, and between which values its rounds lie. */
export function toRatioText(ratios: Series): string {
  const [middle, least, most] = [0.5, 0, 1].map((share) => toShort(quantile(ratios, share)));
  return `${middle} (${least}–${most})`;
}

/** With three digits that count. */
export function toShort(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** @param ms of calls */
export function toMsText(ms: Series): string {
  return median(ms).toFixed(median(ms) < 10 ? 2 : 1);
}

export function atLeast(what: string, goal: number, ratios: Series, unit = ''): Goal {
  const reached = median(ratios);
  return {
    what,
    goal: `at least ${goal}${unit}`,
    reached: `${toRatioText(ratios)}${unit}`,
    met: reached >= goal,
  };
}

export function atMost(what: string, goal: number, values: Series, unit = ''): Goal {
  const reached = median(values);
  return { what, goal: `at most ${goal}${unit}`, reached: `${toRatioText(values)}${unit}`, met: reached <= goal };
}
