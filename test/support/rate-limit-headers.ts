import { expect } from 'vitest';

import type { HttpResponse } from './gateway.js';

/** Asserts that a response tells of a window that is open, under both of the names that clients look for. */
export function expectLimitInHeaders({ status, headers }: HttpResponse, limit: number): void {
  const [, remaining = '', seconds = ''] = /^"per-key";r=(\d+);t=(\d+)$/.exec(headers.ratelimit ?? '') ?? [];
  expect(headers).toMatchObject({
    'ratelimit-policy': `"per-key";q=${limit};w=60`,
    'x-ratelimit-limit': String(limit),
    'x-ratelimit-remaining': remaining,
    'x-ratelimit-reset': expect.stringMatching(/^\d{10}$/) as unknown,
  });
  expect(Number(remaining)).toBeLessThan(limit);
  expect(Number(seconds)).toBeLessThanOrEqual(60);
  expect(headers['retry-after']).toBe(status === 429 ? seconds : undefined);
}
