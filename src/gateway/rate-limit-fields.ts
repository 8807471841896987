/** Where a key stands against its limit, as HTTP tells it. */
import type { HttpRules } from '../keys/keyspace.js';
import type { RateStanding } from '../verify/budgets.js';
import type { Header } from './header.js';

/** The limit holds for a key and those that rotations make of it. */
const POLICY = '"per-key"';

/**
 * `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10, and where the keyspace asks the three that
 * were usual before: limit, remaining, and when the window ends, in seconds since 1970.
 * @param retryAfterMs for a request that was turned down
 */
export function rateLimitFields(
  standing: RateStanding,
  which: HttpRules['rateLimitHeaders'],
  now: Date,
  retryAfterMs = 0,
): Header[] {
  const { limit, remaining, windowMs, resetTime } = standing;
  // Whole seconds, rounded up: who comes back then finds the next window open.
  const resetMs = Math.max(retryAfterMs, (resetTime?.getTime() ?? 0) - now.getTime(), 0);
  const reset = toSeconds(resetMs);
  // Without an open window nothing ends.
  const ends = resetTime || retryAfterMs > 0 ? `;t=${reset}` : '';
  const fields: Header[] = [
    ['ratelimit-policy', `${POLICY};q=${limit};w=${toSeconds(windowMs)}`],
    ['ratelimit', `${POLICY};r=${remaining}${ends}`],
  ];
  if (which === 'standard_and_x') {
    fields.push(
      ['x-ratelimit-limit', `${limit}`],
      ['x-ratelimit-remaining', `${remaining}`],
      ['x-ratelimit-reset', `${toSeconds(now.getTime() + resetMs)}`],
    );
  }
  // The same moment as the field's own: the draft wants it no earlier.
  if (retryAfterMs > 0) fields.push(['retry-after', `${reset}`]);
  return fields;
}

function toSeconds(ms: number): number {
  return Math.ceil(ms / 1000);
}
