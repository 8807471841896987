import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { stringify } from 'yaml';

import { parseKeyspaces } from '../../src/config/keyspaces.js';
import { formatProblem } from '../../src/config/problems.js';
import { systemRandom } from '../../src/keys/base62.js';
import { BODY_LENGTH_MIN, newCredential } from '../../src/keys/credential.js';
import type { Keyspace } from '../../src/keys/keyspace.js';

function parsed(yamlText: string): ReadonlyMap<string, Keyspace> {
  const keyspaces = parseKeyspaces(yamlText);
  if (Array.isArray(keyspaces)) throw new Error(keyspaces.map(formatProblem).join('\n'));
  return keyspaces;
}

function problemsOf(yamlText: string): string[] {
  const keyspaces = parseKeyspaces(yamlText);
  return Array.isArray(keyspaces) ? keyspaces.map(formatProblem) : [];
}

type Fields = Readonly<Record<string, unknown>>;

function fileOf(...keyspaces: Fields[]): string {
  return stringify({ keyspaces });
}

const shop = { name: 'shop', prefix: 'shop_' };

function keyspaceOf(fields: Fields): Keyspace {
  const keyspace = parsed(fileOf({ ...shop, ...fields })).get('shop');
  if (!keyspace) throw new Error('no keyspace shop');
  return keyspace;
}

/** The problems of one keyspace, their path shortened to what lies within it. */
function faultsOf(fields: Fields): string[] {
  return problemsOf(fileOf({ ...shop, ...fields })).map((line) => line.replace('keyspaces[0].', ''));
}

describe('the shipped keyspaces', () => {
  const shipped = parsed(readFileSync(new URL('../../config/keyspaces.yaml', import.meta.url), 'utf8'));
  const product = (name: string): Keyspace => {
    const keyspace = shipped.get(name);
    if (!keyspace) throw new Error(`no keyspace ${name}`);
    return keyspace;
  };

  test('are the five products', () => {
    expect([...shipped.keys()]).toEqual(['hotmetal', 'metal', 'metlo', 'hookdeploy', 'hygiara']);
  });

  test.each([...shipped.values()])('$name keeps 128 bits undisclosed', ({ credential }) => {
    const { secret, display } = newCredential(credential, [], systemRandom);
    const shown = display.slice(credential.prefix.length).replace(/^\*+|\.+$/g, '');
    expect(shown).toHaveLength(4);
    // What is shown could be four of the random characters, and the checksum is computed from them all.
    const unknown = secret.reveal().length - credential.prefix.length - 6 - shown.length;
    expect(unknown * Math.log2(62)).toBeGreaterThanOrEqual(128);
  });

  /** As documented, or as a gateway refuses where nothing is. */
  const refusal = { status: 401, contentType: 'application/json', body: '{"error":"unauthorized"}' };

  test('hotmetal: optional labels, hm_****abcd, no answer kept', () => {
    expect(product('hotmetal')).toMatchObject({
      credential: { kind: 'bearer', prefix: 'hm_', bodyLength: 49, display: 'last_four' },
      names: { required: false, unique: false, default: 'Untitled key' },
      cacheTtlMs: 0,
    });
    expect(product('hotmetal').http).toEqual({
      credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
      refusal,
      rateLimitHeaders: 'standard',
    });
  });

  test('metal: a pair without prefix, managed by admins, limited by plan, refused with its own body', () => {
    const metal = product('metal');
    expect(metal).toMatchObject({
      credential: { kind: 'pair', prefix: '', display: 'last_four' },
      managePermissions: ['admin'],
      cacheTtlMs: 5000,
    });
    expect(metal.http).toEqual({
      credential: { kind: 'pair', clientIdHeader: 'x-metal-client-id', secretHeader: 'x-metal-api-key' },
      refusal: { status: 401, contentType: 'application/json', body: '{"error":"invalid api key or clientId"}' },
      rateLimitHeaders: 'standard',
    });
    expect([...metal.plans.values()].map(({ name, keyLimit }) => [name, keyLimit])).toEqual([
      [metal.defaultPlan, 100],
      ['enterprise', 1000],
    ]);
  });

  test('metlo: required unique names, four types, a public id, the raw key or Bearer, a maximum of keys', () => {
    const metlo = product('metlo');
    expect(metlo).toMatchObject({
      credential: { kind: 'bearer', prefix: 'metlo_' },
      publicIdPrefix: 'metlo',
      names: { required: true, unique: true },
      types: { allowed: ['GENERIC', 'ONBOARDING', 'GCP', 'AWS'], default: 'GENERIC' },
      cacheTtlMs: 5000,
    });
    expect(metlo.http).toEqual({
      credential: { kind: 'bearer', header: 'authorization', schemes: ['raw', 'bearer'] },
      refusal,
      rateLimitHeaders: 'standard',
    });
    expect(metlo.plans.get(metlo.defaultPlan)?.keyLimit).toBeDefined();
  });

  test('hookdeploy: hd_live_a1b2..., four plans by the minute, older keys by their pattern', () => {
    const hookdeploy = product('hookdeploy');
    expect(hookdeploy).toMatchObject({
      credential: { kind: 'bearer', prefix: 'hd_live_', bodyLength: 32, display: 'first_four' },
      managePermissions: ['api_keys.manage'],
      defaultPlan: 'free',
      cacheTtlMs: 30_000,
      names: { required: true, unique: false },
      legacy: { pattern: /^hd_live_[a-z0-9]{32}$/, digest: 'sha256' },
    });
    expect(hookdeploy.http).toEqual({
      credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
      refusal,
      rateLimitHeaders: 'standard_and_x',
    });
    expect(hookdeploy.expiration).toEqual({});
    expect([...hookdeploy.plans.values()].map(({ name, requestsPerMinute }) => [name, requestsPerMinute])).toEqual([
      ['free', 60],
      ['starter', 120],
      ['team', 300],
      ['enterprise', 1000],
    ]);
    // The example of the product's own document.
    expect(hookdeploy.legacy?.pattern.test('hd_live_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6')).toBe(true);
  });

  test('hygiara: required names, X-API-Key, the prefix shown, no answer kept', () => {
    expect(product('hygiara')).toMatchObject({
      credential: { kind: 'bearer', prefix: 'hrdly_', display: 'first_four' },
      names: { required: true, unique: false },
      expiration: {},
      cacheTtlMs: 0,
    });
    expect(product('hygiara').http).toEqual({
      credential: { kind: 'bearer', header: 'x-api-key', schemes: ['raw'] },
      refusal,
      rateLimitHeaders: 'standard',
    });
  });
});

describe('a keyspaces file', () => {
  test('with ten mistakes gives ten lines', () => {
    const yamlText = `
keyspaces:
  - name: Hot Metal
    prefix: hm_
    credential: barer
  - name: metal
    body_length: 31
  - name: metal
    prefix: hm_live_
    names: { unique: true }
    dsplay: last_four
  - name: hookdeploy
    prefix: hd_
    plans:
      free: { requests_per_minute: 60 }
      pro: { key_limit: -5 }
    default_plan: gold
`;
    expect(problemsOf(yamlText)).toEqual([
      'keyspaces[0].name: "Hot Metal"; expected 1 to 63 characters of a-z 0-9 -, the first a letter',
      'keyspaces[0].credential: "barer"; expected one of bearer, pair',
      "keyspaces[1].prefix: missing; expected 0 to 32 characters of A-Z a-z 0-9 _ -, '' for none",
      'keyspaces[1].body_length: 31; expected a whole number from 32 to 128',
      'keyspaces[2].names.unique: true; expected false, or names.required true: two keys created without a name would share one',
      'keyspaces[2].dsplay: unknown field; expected display',
      'keyspaces[3].plans.pro.key_limit: -5; expected a whole number, 1 or more',
      'keyspaces[3].default_plan: "gold"; expected one of free, pro',
      'keyspaces[2].name: "metal"; expected a name of its own: keyspaces[1] has it',
      'keyspaces[2].prefix: "hm_live_"; expected a prefix that neither begins another nor goes on from it: keyspaces[0] has "hm_"',
    ]);
  });

  test('needs a list of at least one keyspace', () => {
    const fields =
      'name, prefix, credential, body_length, public_id_prefix, display, names, types, expiration, overlap_max, ' +
      'manage_permissions, plans, default_plan, cache_ttl, legacy, http';
    expect(problemsOf('')).toEqual(['top level: empty; expected a mapping of keyspaces']);
    // Another file than the one that was meant, perhaps a key: its text is not repeated.
    expect(problemsOf('-----BEGIN PRIVATE KEY----- abc')).toEqual(['top level: text; expected a mapping of keyspaces']);
    expect(problemsOf('keyspaces: []')).toEqual(['keyspaces: an empty list; expected at least one keyspace']);
    expect(problemsOf('keyspaces: hotmetal')).toEqual(['keyspaces: "hotmetal"; expected a list of keyspaces']);
    expect(problemsOf('keyspaces: [hotmetal, null]')).toEqual([
      `keyspaces[0]: "hotmetal"; expected a mapping of ${fields}`,
      `keyspaces[1]: empty; expected a mapping of ${fields}`,
    ]);
  });

  test('that is not YAML is reported with the line', () => {
    const yaml = 'expected one document of YAML 1.2';
    expect(problemsOf('keyspaces:\n\t- name: a')).toEqual([`line 2, column 1: tab as indent; ${yaml}`]);
    expect(problemsOf('keyspaces: []\n---\nkeyspaces: []')).toEqual([`line 2, column 1: multiple docs; ${yaml}`]);
    expect(problemsOf('keyspaces: !secret []')).toEqual([`line 1, column 12: tag resolve failed; ${yaml}`]);
  });

  test('that gives a field twice has the rest of its problems reported too', () => {
    expect(problemsOf('keyspaces:\n  - name: a\n    name: b\n    prefix: "?"')).toEqual([
      'line 3, column 5: duplicate key; expected one document of YAML 1.2',
      `keyspaces[0].prefix: "?"; expected 0 to 32 characters of A-Z a-z 0-9 _ -, '' for none`,
    ]);
    expect(problemsOf('keyspaces:\n  - name: a\n    name: b\n    prefix: b_')).toHaveLength(1);
  });

  test('whose aliases lead nowhere or multiply beyond reason is refused', () => {
    const lines = ['a: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 10; level += 1) {
      lines.push(
        `a${level}: &a${level} [${Array<string>(10)
          .fill(`*a${level - 1}`)
          .join(', ')}]`,
      );
    }
    for (const text of ['keyspaces: *nowhere', lines.join('\n')]) {
      expect(problemsOf(text)).toEqual([
        'YAML: an alias that cannot be resolved; expected the anchor above it, and few aliases',
      ]);
    }
  });

  test('has a long value cut short', () => {
    expect(faultsOf({ display: 'x'.repeat(10_000) })[0]?.length).toBeLessThan(200);
  });
});

describe('a keyspace', () => {
  test('needs no more than a name and a prefix', () => {
    expect(keyspaceOf({})).toEqual({
      name: 'shop',
      credential: { kind: 'bearer', prefix: 'shop_', bodyLength: 49, display: 'last_four' },
      names: { required: false, unique: false, default: '' },
      types: { allowed: [] },
      expiration: {},
      managePermissions: [],
      plans: new Map([['default', { name: 'default' }]]),
      defaultPlan: 'default',
      cacheTtlMs: 0,
    });
    expect(problemsOf('keyspaces: [{}]')).toEqual([
      'keyspaces[0].name: missing; expected 1 to 63 characters of a-z 0-9 -, the first a letter',
      "keyspaces[0].prefix: missing; expected 0 to 32 characters of A-Z a-z 0-9 _ -, '' for none",
    ]);
  });

  test('takes every field', () => {
    expect(
      keyspaceOf({
        credential: 'pair',
        body_length: 64,
        public_id_prefix: 'shop',
        display: 'first_four',
        names: { default: 'Unnamed' },
        types: { allowed: ['A', 'B'], default: 'B' },
        expiration: { default: '30d', max: '720h' },
        overlap_max: '0s',
        manage_permissions: ['admin', 'keys:write'],
        plans: { free: {}, pro: { key_limit: 1, requests_per_minute: 4_294_967_295 } },
        default_plan: 'free',
        cache_ttl: '500ms',
        http: {
          client_id_header: 'X-Client',
          secret_header: 'X-Secret',
          refusal: { status: 403, content_type: 'text/plain; charset=utf-8', body: 'no' },
          rate_limit_headers: 'standard_and_x',
        },
      }),
    ).toEqual({
      name: 'shop',
      credential: { kind: 'pair', prefix: 'shop_', bodyLength: 64, display: 'first_four' },
      publicIdPrefix: 'shop',
      names: { required: false, unique: false, default: 'Unnamed' },
      types: { allowed: ['A', 'B'], default: 'B' },
      expiration: { defaultMs: 2_592_000_000, maxMs: 2_592_000_000 },
      overlapMaxMs: 0,
      managePermissions: ['admin', 'keys:write'],
      plans: new Map([
        ['free', { name: 'free' }],
        ['pro', { name: 'pro', keyLimit: 1, requestsPerMinute: 4_294_967_295 }],
      ]),
      defaultPlan: 'free',
      cacheTtlMs: 500,
      http: {
        credential: { kind: 'pair', clientIdHeader: 'x-client', secretHeader: 'x-secret' },
        refusal: { status: 403, contentType: 'text/plain; charset=utf-8', body: 'no' },
        rateLimitHeaders: 'standard_and_x',
      },
    });
  });

  test('keeps 128 bits undisclosed at its shortest body, and its token below what is looked at', () => {
    expect(keyspaceOf({ body_length: 32 }).credential.bodyLength).toBe(BODY_LENGTH_MIN);
    for (const length of [31, 129, 49.5, '49']) {
      expect(faultsOf({ body_length: length })).toEqual([
        `body_length: ${JSON.stringify(length)}; expected a whole number from 32 to 128`,
      ]);
    }
  });

  test('has names that are well formed, and filled in only where that makes sense', () => {
    const form = 'a name of 1 to 200 characters, trimmed, in Unicode NFC, without control characters';
    for (const name of ['', ' x', 'x'.repeat(201), 'a\u0007b', 'e\u0301']) {
      expect(faultsOf({ names: { default: name } })).toEqual([
        expect.stringMatching(new RegExp(`^names\\.default: ".*"; expected ${form}$`, 's')),
      ]);
    }
    expect(faultsOf({ names: { unique: true, default: 'Unnamed' } })).toEqual([
      'names.unique: true; expected false, or names.required true: two keys created without a name would share one',
    ]);
    expect(faultsOf({ names: { required: true, default: 'Unnamed' } })).toEqual([
      'names.default: "Unnamed"; expected no default, or names.required false: a name that must be given is never filled in',
    ]);
    expect(faultsOf({ names: { required: 'yes' } })).toEqual(['names.required: "yes"; expected true or false']);
  });

  test('has types that are well formed, each once, the default among them', () => {
    expect(faultsOf({ types: { allowed: ['A', 'A', 'a b'], default: 'C' } })).toEqual([
      'types.allowed[2]: "a b"; expected 1 to 64 characters of A-Z a-z 0-9 . _ -',
      'types.allowed[1]: "A"; expected each type once',
      'types.default: "C"; expected one of A, a b',
    ]);
    expect(faultsOf({ types: { default: 'A' } })).toEqual([
      'types.default: "A"; expected no default where no type is allowed',
    ]);
  });

  test('has durations with a unit', () => {
    for (const [text, ms] of [
      ['1d', 86_400_000],
      ['2h', 7_200_000],
      ['3m', 180_000],
      ['4s', 4000],
      ['5ms', 5],
      ['0s', 0],
      ['0', 0],
      [0, 0],
    ]) {
      expect(keyspaceOf({ cache_ttl: text }).cacheTtlMs).toBe(ms);
    }
    for (const duration of ['5', 5, '', 's', '-1s', '1.5h', '1 s', '1S', '36501d', '1d2h', null, true]) {
      expect(faultsOf({ cache_ttl: duration })).toEqual([
        `cache_ttl: ${duration === null ? 'empty' : JSON.stringify(duration)}; expected a duration such as 30d, 12h, 5m, 30s or 0s, at most 36500d`,
      ]);
    }
  });

  test('has lifetimes above nothing, the default no longer than the longest', () => {
    expect(faultsOf({ expiration: { default: '0s', max: 0 } })).toEqual([
      'expiration.default: "0s"; expected a duration above 0 such as 30d, 12h, 5m or 30s, at most 36500d',
      'expiration.max: 0; expected a duration above 0 such as 30d, 12h, 5m or 30s, at most 36500d',
    ]);
    expect(faultsOf({ expiration: { default: '8d', max: '7d' } })).toEqual([
      'expiration.default: "8d"; expected a duration no longer than expiration.max',
    ]);
    expect(faultsOf({ expiration: { default: '7d', max: '7d' } })).toEqual([]);
  });

  test('has plans with limits, one of them the default', () => {
    expect(faultsOf({ plans: { free: {} } })).toEqual(['default_plan: missing; expected one of free']);
    expect(faultsOf({ plans: {}, default_plan: 'free' })).toEqual([
      'plans: an empty mapping; expected at least one plan, or no field plans',
    ]);
    expect(faultsOf({ default_plan: 'free' })).toEqual(['default_plan: "free"; expected one of default']);
    expect(faultsOf({ plans: { 'Big One': {}, free: null }, default_plan: 'free' })).toEqual([
      'plans["Big One"]: "Big One"; expected a plan name of 1 to 63 characters of a-z 0-9 . _ -, the first a letter or a digit',
      'plans.free: empty; expected a mapping of key_limit, requests_per_minute',
    ]);
    for (const limit of [0, -5, 1.5, '9', null]) {
      const shown = limit === null ? 'empty' : JSON.stringify(limit);
      expect(faultsOf({ plans: { free: { requests_per_minute: limit } }, default_plan: 'free' })).toEqual([
        `plans.free.requests_per_minute: ${shown}; expected a whole number, 1 or more`,
      ]);
    }
    expect(faultsOf({ plans: { free: { key_limit: 2 ** 32 } }, default_plan: 'free' })).toEqual([
      'plans.free.key_limit: 4294967296; expected a whole number, 4294967295 or less',
    ]);
  });

  test('has an unknown field reported with the name that was meant, else with all', () => {
    expect(
      faultsOf({ cachettl: '5s', names: { requird: true }, plans: { a: { limit: 5 } }, default_plan: 'a' }),
    ).toEqual([
      'names.requird: unknown field; expected required',
      'plans.a.limit: unknown field; expected one of key_limit, requests_per_minute',
      'cachettl: unknown field; expected cache_ttl',
    ]);
  });
});

describe('prefixes', () => {
  const clash = (one: Fields, other: Fields): string[] =>
    problemsOf(fileOf({ name: 'one', ...one }, { name: 'other', ...other }));

  test('do not begin one another', () => {
    for (const [one, other] of [
      ['a_', 'a_'],
      ['a_', 'a_b_'],
      ['a_b_', 'a_'],
    ]) {
      expect(clash({ prefix: one }, { prefix: other })).toEqual([
        `keyspaces[1].prefix: "${other}"; expected a prefix that neither begins another nor goes on from it: keyspaces[0] has "${one}"`,
      ]);
    }
    expect(clash({ prefix: 'a_' }, { prefix: 'ab_' })).toEqual([]);
  });

  test('may be empty, for keys whose keyspace the request names', () => {
    expect(clash({ prefix: '' }, { prefix: '' })).toEqual([]);
    expect(clash({ prefix: '' }, { prefix: 'a_' })).toEqual([]);
    expect(clash({ prefix: 'a_' }, { prefix: '', credential: 'pair' })).toEqual([]);
  });
});

describe('a legacy pattern', () => {
  const of = (pattern: unknown): string[] => faultsOf({ legacy: { pattern } });

  test.each(['^hd_live_[a-z0-9]{32}$', '^sk_[a-z]{4}_[^_]{20,40}$', '^[\\w-]+\\.[\\w-]+$', '^a/b$', '^[\\]a]\\$.$'])(
    'may be %s',
    (pattern) => {
      expect(keyspaceOf({ legacy: { pattern } }).legacy).toEqual({ pattern: new RegExp(pattern), digest: 'sha256' });
    },
  );

  test.each([
    ['not anchored', 'abc'],
    ['anchored on one side', '^abc'],
    ['anchored in one alternative', '^a|b$'],
    ['ending in an escaped $', '^a\\$'],
    ['with a group', '^(ab)$'],
    ['of exponential time', '^(a+)+$'],
    ['of exponential time', '^(?:a|a)*b$'],
    ['of cubic time', '^a*a*a*b$'],
    ['with a look-ahead', '^(?=a)a$'],
    ['with an anchor inside', '^a$b$'],
    ['with a range out of order', '^[z-a]$'],
    ['with a repeat out of order', '^a{3,1}$'],
    ['with an open class', '^[a$'],
    ['that is too long', `^${'a'.repeat(199)}$`],
    ['that is no text', 5],
  ])('is refused: %s', (_, pattern) => {
    expect(of(pattern)).toEqual([expect.stringMatching(/^legacy\.pattern: .*; expected /)]);
  });

  test('comes with SHA-256 alone, for bearer tokens and for the secrets of pairs', () => {
    expect(faultsOf({ legacy: { pattern: '^a$', digest: 'md5' } })).toEqual([
      'legacy.digest: "md5"; expected one of sha256',
    ]);
    expect(keyspaceOf({ legacy: { pattern: '^a$' }, credential: 'pair' }).legacy?.pattern).toEqual(/^a$/);
  });
});

describe('http rules', () => {
  test('of a bearer keyspace have defaults', () => {
    const refusal = { status: 401, contentType: 'application/json', body: '{"error":"unauthorized"}' };
    expect(keyspaceOf({ http: {} }).http).toEqual({
      credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
      refusal,
      rateLimitHeaders: 'standard',
    });
    expect(keyspaceOf({ http: { header: 'X-API-Key' } }).http?.credential).toEqual({
      kind: 'bearer',
      header: 'x-api-key',
      schemes: ['raw'],
    });
  });

  test('name the headers of the credential form, and no others', () => {
    expect(faultsOf({ http: { client_id_header: 'x-a', secret_header: 'x-b' } })).toEqual([
      'http.client_id_header: "x-a"; expected no such field where credential is bearer',
      'http.secret_header: "x-b"; expected no such field where credential is bearer',
    ]);
    expect(faultsOf({ credential: 'pair', http: { header: 'x-a', schemes: ['raw'] } })).toEqual([
      'http.header: "x-a"; expected no such field where credential is pair',
      'http.schemes: a list; expected no such field where credential is pair',
      'http.client_id_header: missing; expected the name of an HTTP header',
      'http.secret_header: missing; expected the name of an HTTP header',
    ]);
    expect(faultsOf({ credential: 'pair', http: { client_id_header: 'X-A', secret_header: 'x-a' } })).toEqual([
      'http.secret_header: "x-a"; expected another header than client_id_header',
    ]);
  });

  test('are well formed', () => {
    expect(
      faultsOf({
        http: {
          header: 'x api key',
          schemes: ['basic'],
          refusal: { status: 200, content_type: 'json\r\nx: y', body: 5 },
          rate_limit_headers: 'x',
        },
      }),
    ).toEqual([
      'http.header: "x api key"; expected the name of an HTTP header',
      'http.schemes[0]: "basic"; expected one of bearer, raw',
      'http.refusal.status: 200; expected a whole number from 400 to 599',
      'http.refusal.content_type: "json\\r\\nx: y"; expected a media type such as application/json',
      'http.refusal.body: 5; expected text',
      'http.rate_limit_headers: "x"; expected one of standard, standard_and_x',
    ]);
    expect(faultsOf({ http: { schemes: [] } })).toEqual(['http.schemes: an empty list; expected bearer, raw or both']);
  });
});
