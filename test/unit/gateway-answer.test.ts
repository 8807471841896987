/** What a gateway is to do: for every decision its answer, and with every known key that has a limit its rate-limit fields. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { CheckResponse } from '../../src/gen/envoy/service/auth/v3/external_auth.js';
import { type Answer, type HttpKeyspace, refuseUnreadable, toAnswer, UNAVAILABLE } from '../../src/gateway/answer.js';
import { rateLimitFields } from '../../src/gateway/rate-limit-fields.js';
import type { RequestHeaders } from '../../src/gateway/request-headers.js';
import { forgedNames, upstreamHeadersOf } from '../../src/gateway/upstream-headers.js';
import { serializeAnswer } from '../../src/grpc/check.js';
import type { HttpRules } from '../../src/keys/keyspace.js';
import type { KnownKey } from '../../src/verify/record-cache.js';
import type { Verification } from '../../src/verify/verifier.js';
import { aKey, aKeyspace } from '../support/domain.js';

const NOW = new Date('2026-08-05T12:00:00.250Z');
const KEY: KnownKey = aKey({ name: 'Café ✓', scopes: ['read', 'write'] });
const RATE_LIMIT = { limit: 60, remaining: 12, windowMs: 60_000, resetTime: new Date(NOW.getTime() + 20_001) };

const rules: HttpRules = {
  credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
  refusal: { status: 401, contentType: 'text/plain', body: 'no\n' },
  rateLimitHeaders: 'standard_and_x',
};
const keyspaceWith = (http: Partial<HttpRules> = {}): HttpKeyspace => ({ ...aKeyspace(), http: { ...rules, ...http } });
const noHeaders: RequestHeaders = { valuesOf: () => [], names: () => [] };

const answerTo = (verification: Verification, http: Partial<HttpRules> = {}, names: string[] = []): Answer =>
  toAnswer(verification, keyspaceWith(http), { ...noHeaders, names: () => names }, NOW);

const DENIALS = ['REVOKED', 'DISABLED', 'EXPIRED', 'ORGANIZATION_SUSPENDED'] as const;

describe('for each decision', () => {
  test.each([
    ...DENIALS.map((decision) => ({ decision, key: KEY })),
    { decision: 'MALFORMED' as const },
    { decision: 'NOT_FOUND' as const },
    { decision: 'WRONG_ORGANIZATION' as const },
  ])('$decision is told as the keyspace says, and told from no other', (verification) => {
    expect(answerTo(verification)).toMatchObject({
      kind: 'refuse',
      status: 401,
      headers: [
        ['content-type', 'text/plain'],
        ['www-authenticate', 'Bearer realm="shop", error="invalid_token"'],
      ],
      body: 'no\n',
    });
  });

  test('VALID lets in, with the key', () => {
    expect(answerTo({ decision: 'VALID', key: KEY, cacheTtlMs: 5000 })).toEqual({
      kind: 'let_in',
      decision: 'VALID',
      key: KEY,
      forged: [],
      headers: [],
    });
  });

  test('INSUFFICIENT_SCOPE is 403, RATE_LIMITED 429 with Retry-After, and what is not known 503', () => {
    expect(answerTo({ decision: 'INSUFFICIENT_SCOPE', key: KEY })).toMatchObject({
      status: 403,
      headers: [
        ['content-type', 'application/json'],
        ['www-authenticate', 'Bearer realm="shop", error="insufficient_scope"'],
      ],
    });
    const limited = answerTo({ decision: 'RATE_LIMITED', key: KEY, rateLimit: RATE_LIMIT, retryAfterMs: 20_001 });
    expect(limited).toMatchObject({ status: 429 });
    expect(limited.kind === 'refuse' && limited.headers).toContainEqual(['retry-after', '21']);
    expect(UNAVAILABLE).toEqual({
      kind: 'refuse',
      status: 503,
      headers: [
        ['content-type', 'application/json'],
        ['retry-after', '1'],
      ],
      body: '{"error":"service unavailable"}',
    });
  });

  test.each<[credential: HttpRules['credential'], missing: string, bad: string]>([
    [rules.credential, 'Bearer realm="shop"', 'Bearer realm="shop", error="invalid_token"'],
    [
      { kind: 'bearer', header: 'authorization', schemes: ['raw', 'bearer'] },
      'Bearer realm="shop"',
      'Bearer realm="shop", error="invalid_token"',
    ],
    [{ kind: 'bearer', header: 'x-api-key', schemes: ['raw'] }, 'ApiKey realm="shop"', 'ApiKey realm="shop"'],
    [{ kind: 'pair', clientIdHeader: 'x-id', secretHeader: 'x-secret' }, 'ApiKey realm="shop"', 'ApiKey realm="shop"'],
  ])('a 401 says what it wants: %o', (credential, missing, bad) => {
    const challenge = (answer: Answer) =>
      answer.kind === 'refuse' ? answer.headers.filter(([name]) => name === 'www-authenticate') : undefined;
    expect(challenge(refuseUnreadable('missing', keyspaceWith({ credential })))).toEqual([
      ['www-authenticate', missing],
    ]);
    for (const unreadable of ['repeated', 'malformed', 'too_long'] as const) {
      expect(challenge(refuseUnreadable(unreadable, keyspaceWith({ credential })))).toEqual([
        ['www-authenticate', bad],
      ]);
    }
    const refusal = { status: 404, contentType: 'text/plain', body: '' };
    expect(challenge(refuseUnreadable('missing', keyspaceWith({ credential, refusal })))).toEqual([]);
  });
});

describe('rate-limit fields', () => {
  const LIMITED = [
    ['ratelimit-policy', '"per-key";q=60;w=60'],
    ['ratelimit', '"per-key";r=12;t=21'],
    ['x-ratelimit-limit', '60'],
    ['x-ratelimit-remaining', '12'],
    ['x-ratelimit-reset', String(Math.ceil((NOW.getTime() + 20_001) / 1000))],
  ];

  test('come with every answer about a known key that has a limit', () => {
    for (const verification of [
      { decision: 'VALID', key: KEY, cacheTtlMs: 0, rateLimit: RATE_LIMIT },
      { decision: 'INSUFFICIENT_SCOPE', key: KEY, rateLimit: RATE_LIMIT },
      { decision: 'RATE_LIMITED', key: KEY, rateLimit: RATE_LIMIT, retryAfterMs: 1 },
      ...DENIALS.map((decision) => ({ decision, key: KEY, rateLimit: RATE_LIMIT })),
    ] as const satisfies Verification[]) {
      expect(answerTo(verification).headers).toEqual(expect.arrayContaining(LIMITED));
    }
  });

  test('are the standard two alone where the keyspace does not ask for more, and say no end where no window is open', () => {
    const { resetTime: _, ...untouched } = { ...RATE_LIMIT, remaining: 60 };
    expect(rateLimitFields(untouched, 'standard', NOW)).toEqual([
      ['ratelimit-policy', '"per-key";q=60;w=60'],
      ['ratelimit', '"per-key";r=60'],
    ]);
  });

  // https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-10
  test('are whole numbers, never negative, and no one is sent away for less than until the window ends', () => {
    const whole = fc.integer({ min: 0, max: 0xffff_ffff });
    const offset = fc.integer({ min: -120_000, max: 120_000 });
    fc.assert(
      fc.property(
        whole,
        whole,
        offset,
        fc.integer({ min: 0, max: 120_000 }),
        (limit, remaining, resetMs, retryAfterMs) => {
          const resetTime = new Date(NOW.getTime() + resetMs);
          const standing = { limit, remaining, windowMs: 60_000, resetTime };
          const fields = new Map(rateLimitFields(standing, 'standard_and_x', NOW, retryAfterMs));
          const t = Number(/^"per-key";r=\d+;t=(\d+)$/.exec(fields.get('ratelimit') ?? '')?.[1]);
          expect(t * 1000).toBeGreaterThanOrEqual(Math.max(resetMs, retryAfterMs));
          expect(fields.get('ratelimit-policy')).toMatch(/^"per-key";q=\d+;w=60$/);
          expect(fields.get('x-ratelimit-reset')).toMatch(/^\d+$/);
          if (retryAfterMs > 0) expect(Number(fields.get('retry-after'))).toBe(t);
          else expect(fields.has('retry-after')).toBe(false);
        },
      ),
    );
  });
});

describe('what the upstream is told', () => {
  test('is printable ASCII, and gives back the key’s name', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), (name) => {
        const told = new Map(upstreamHeadersOf({ ...KEY, name }));
        for (const value of told.values()) expect(value).toMatch(/^[\x20-\x7e]*$/);
        expect(decodeURIComponent(told.get('x-keyreeve-key-name') ?? '')).toBe(name);
      }),
    );
  });

  test('every name that a server could take for one of them is forged, and none that is set or removed anyway', () => {
    const ours = upstreamHeadersOf(KEY).map(([name]) => name);
    expect(forgedNames(ours)).toEqual([]);
    fc.assert(
      fc.property(
        fc.constantFrom(...ours),
        fc.infiniteStream(fc.constantFrom('_', '.', '-', '~', '!')),
        (name, others) => {
          const alike = name.replaceAll('-', () => String(others.next().value));
          expect(forgedNames([alike, alike])).toEqual(ours.includes(alike) ? [] : [alike]);
        },
      ),
    );
    expect(forgedNames(['x-keyreeve-anything', 'x-keyreeve', 'keyreeve-key-id', 'host', 'x-keyreeves-'])).toEqual([
      'x-keyreeve-anything',
    ]);
  });
});

describe('as Envoy gets it', () => {
  const decoded = (answer: Answer) => CheckResponse.decode(serializeAnswer(answer));
  const options = (headers: readonly (readonly [string, string])[]) =>
    headers.map(([key, value]) => ({ header: { key, value }, appendAction: 2 }));

  test('what lets in sets all that there is to tell and removes the rest, whatever their lengths', () => {
    const names = fc.string({ maxLength: 200 });
    const scopes = fc.array(fc.string({ unit: fc.constantFrom('a', ':'), minLength: 1, maxLength: 100 }), {
      maxLength: 40,
    });
    const lists = fc.array(fc.constantFrom('x_keyreeve_a', 'x-keyreeve-b'), { maxLength: 30 });
    fc.assert(
      fc.property(names, scopes, lists, fc.boolean(), (name, some, forged, limited) => {
        const key: KnownKey = { ...aKey({ name, scopes: some }) };
        const rateLimit = limited ? { rateLimit: RATE_LIMIT } : {};
        const answer = answerTo({ decision: 'VALID', key, cacheTtlMs: 0, ...rateLimit }, {}, forged);
        const told = upstreamHeadersOf(key);
        for (let time = 1; time <= 2; time += 1) {
          expect(decoded(answer)).toMatchObject({
            status: { code: 0 },
            httpResponse: {
              $case: 'okResponse',
              value: {
                headers: options(told.filter(([, value]) => value !== '')),
                headersToRemove: [...told.filter(([, value]) => value === '').map(([one]) => one), ...new Set(forged)],
                responseHeadersToAdd: options(answer.headers),
              },
            },
          });
        }
      }),
    );
  });

  test.each([401, 403, 404, 418, 429, 500, 503, 599])('a refusal with %i is never OK', (status) => {
    const refusal = { status, contentType: 'text/plain', body: 'no' };
    const answer = decoded(answerTo({ decision: 'NOT_FOUND' }, { refusal }));
    expect(answer.status?.code).toBeGreaterThan(0);
    expect(answer).toMatchObject({
      httpResponse: { $case: 'deniedResponse', value: { status: { code: status }, body: 'no' } },
    });
  });
});
