/**
 * The keyspaces file: parsed whole, so that later code gets milliseconds, patterns and filled-in defaults, or every
 * problem at once.
 */
import { z } from 'zod';

import { parseName } from '../keys/fields.js';
import { BODY_LENGTH_MIN } from '../keys/credential.js';
import type { HttpRules, Keyspace, Plan } from '../keys/keyspace.js';
import { durationMs } from './duration.js';
import { across, type Findings, mapping, oneOf, type Problem, repeatsOf, text, wholeNumber } from './problems.js';
import { parseYaml } from './yaml.js';

export const keyspaceName = text(/^[a-z][a-z0-9-]{0,62}$/, '1 to 63 characters of a-z 0-9 -, the first a letter');
export const permission = text(/^[\x21-\x7e]{1,128}$/, '1 to 128 printable ASCII characters without spaces');

/** @returns the keyspaces by name, in the file's order */
export function parseKeyspaces(yamlText: string): ReadonlyMap<string, Keyspace> | Problem[] {
  const file = parseYaml(fileSchema(), yamlText);
  if (Array.isArray(file)) return file;
  return new Map(file.keyspaces.map((fields) => [fields.name, toKeyspace(fields)]));
}

// With the longest prefix still well below the 512 bytes beyond which no token is looked at.
const BODY_LENGTH_MAX = 128;
const LEGACY_PATTERN_LENGTH_MAX = 200;
/** The plan of a keyspace that declares none: without limits. */
const IMPLICIT_PLAN = 'default';
const HEADER_NAME = 'the name of an HTTP header';

function fileSchema() {
  return mapping({
    keyspaces: z
      .array(keyspaceSchema(), 'a list of keyspaces')
      .min(1, 'at least one keyspace')
      .check(across(judgeDistinctNames), across(judgePrefixes)),
  });
}

function keyspaceSchema() {
  return keyspaceFields().check(across(judgeDefaultPlan), across(judgeHttp));
}

type KeyspaceFields = z.output<ReturnType<typeof keyspaceFields>>;

function keyspaceFields() {
  return mapping({
    name: keyspaceName,
    prefix: text(/^[A-Za-z0-9_-]{0,32}$/, "0 to 32 characters of A-Z a-z 0-9 _ -, '' for none"),
    credential: oneOf(['bearer', 'pair']).default('bearer'),
    body_length: wholeNumber({ min: BODY_LENGTH_MIN, max: BODY_LENGTH_MAX }).default(49),
    public_id_prefix: text(/^[A-Za-z0-9_-]{1,32}$/, '1 to 32 characters of A-Z a-z 0-9 _ -').optional(),
    display: oneOf(['first_four', 'last_four']).default('last_four'),
    names: namesSchema().prefault({}),
    types: typesSchema().prefault({}),
    expiration: expirationSchema().prefault({}),
    overlap_max: durationMs({ positive: false }).optional(),
    manage_permissions: z.array(permission, 'a list of permissions').default([]),
    plans: plansSchema().optional(),
    default_plan: z.string('the name of a plan').optional(),
    cache_ttl: durationMs({ positive: false }).default(0),
    legacy: legacySchema().optional(),
    http: httpSchema().optional(),
  });
}

function namesSchema() {
  const name = z
    .string('a name')
    .refine(
      (given) => given !== '' && parseName(given) === given,
      'a name of 1 to 200 characters, trimmed, in Unicode NFC, without control characters',
    );
  return mapping({
    required: z.boolean('true or false').default(false),
    unique: z.boolean('true or false').default(false),
    default: name.optional(),
  }).check(
    across((names, { sound, report }) => {
      if (!sound('required')) return;
      if (sound('unique') && names.unique && !names.required) {
        report(['unique'], 'false, or names.required true: two keys created without a name would share one');
      }
      if (sound('default') && names.default !== undefined && names.required) {
        report(['default'], 'no default, or names.required false: a name that must be given is never filled in');
      }
    }),
  );
}

function typesSchema() {
  const type = text(/^[A-Za-z0-9._-]{1,64}$/, '1 to 64 characters of A-Z a-z 0-9 . _ -');
  return mapping({
    allowed: z.array(type, 'a list of types').default([]),
    default: type.optional(),
  }).check(
    across((types, { sound, report }) => {
      if (!sound('allowed')) return;
      for (const index of repeatsOf(types.allowed)) report(['allowed', index], 'each type once');
      if (!sound('default') || types.default === undefined || types.allowed.includes(types.default)) return;
      report(['default'], types.allowed.length > 0 ? oneOfText(types.allowed) : 'no default where no type is allowed');
    }),
  );
}

function expirationSchema() {
  return mapping({
    default: durationMs({ positive: true }).optional(),
    max: durationMs({ positive: true }).optional(),
  }).check(
    across((expiration, { sound, report }) => {
      if (!sound('default') || !sound('max')) return;
      if (expiration.default !== undefined && expiration.max !== undefined && expiration.default > expiration.max) {
        report(['default'], 'a duration no longer than expiration.max');
      }
    }),
  );
}

function plansSchema() {
  const limit = wholeNumber({ min: 1 }).optional();
  const planName = text(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'a plan name');
  return z
    .record(planName, mapping({ key_limit: limit, requests_per_minute: limit }), {
      error: ({ code }) =>
        code === 'invalid_key'
          ? 'a plan name of 1 to 63 characters of a-z 0-9 . _ -, the first a letter or a digit'
          : 'a mapping of plan names to key_limit and requests_per_minute',
    })
    .refine((plans) => Object.keys(plans).length > 0, 'at least one plan, or no field plans');
}

function legacySchema() {
  return mapping({
    pattern: z
      .string('a regular expression')
      .refine(
        isLegacyPattern,
        `^…$ of ${LEGACY_PATTERN_LENGTH_MAX} characters at most, made of characters, classes such as [a-z0-9] and ` +
          `repeats such as {32}, two of them at most of variable length; no groups, no alternatives`,
      )
      .transform((pattern) => new RegExp(pattern)),
    digest: oneOf(['sha256']).default('sha256'),
  });
}

function httpSchema() {
  // RFC 9110, 5.6.2: token. Header names are compared without case, so they are kept in lower case.
  const header = text(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/, HEADER_NAME).toLowerCase();
  const mediaType = text(/^[\w.+-]+\/[\w.+-]+(?:; ?[\w-]+=[\w.-]+)*$/, 'a media type such as application/json');
  return mapping({
    header: header.optional(),
    schemes: z
      .array(oneOf(['bearer', 'raw']), 'a list of bearer, raw')
      .min(1, 'bearer, raw or both')
      .optional(),
    client_id_header: header.optional(),
    secret_header: header.optional(),
    refusal: mapping({
      status: wholeNumber({ min: 400, max: 599 }).default(401),
      content_type: mediaType.default('application/json'),
      body: z.string('text').max(4096, 'text of 4096 characters at most').default('{"error":"unauthorized"}'),
    }).prefault({}),
    rate_limit_headers: oneOf(['standard', 'standard_and_x']).default('standard'),
  });
}

// One character at a time, each repeated at most: groups and alternatives, with which a pattern can take exponential
// time on a token made for it, have no place in this, and with two variable repeats a match stays below n².
const LEGACY_PIECE = /(?:\\.|\[(?:\\.|[^\]\\])*\]|[^\\^$*+?()[\]{}|])(?:(\{\d+\})|([*+?]|\{\d+,\d*\}))?/gy;
const LEGACY_VARIABLE_REPEATS_MAX = 2;

function isLegacyPattern(pattern: string): boolean {
  if (pattern.length > LEGACY_PATTERN_LENGTH_MAX || !pattern.startsWith('^') || !pattern.endsWith('$')) return false;
  const inner = pattern.slice(1, -1);
  const pieces = [...inner.matchAll(LEGACY_PIECE)];
  if (pieces.map(([piece]) => piece).join('') !== inner) return false;
  const variable = pieces.filter(([, , repeat]) => repeat !== undefined);
  return variable.length <= LEGACY_VARIABLE_REPEATS_MAX && compiles(pattern);
}

/** Not where a range is out of order, as in `[z-a]` or `{3,1}`. */
function compiles(pattern: string): boolean {
  try {
    new RegExp(pattern);
    return true;
  } catch {
    return false;
  }
}

function judgeDefaultPlan(fields: KeyspaceFields, { sound, report }: Findings): void {
  if (!sound('plans') || !sound('default_plan')) return;
  const known = Object.keys(fields.plans ?? { [IMPLICIT_PLAN]: {} });
  if (fields.default_plan === undefined && !fields.plans) return;
  if (!known.includes(fields.default_plan ?? '')) report(['default_plan'], oneOfText(known));
}

function judgeHttp(fields: KeyspaceFields, { sound, report }: Findings): void {
  if (!sound('credential') || !sound('http') || !fields.http) return;
  const { credential, http } = fields;
  const foreign = credential === 'pair' ? BEARER_FIELDS : PAIR_FIELDS;
  for (const field of foreign) {
    if (http[field] !== undefined) report(['http', field], `no such field where credential is ${credential}`);
  }
  if (credential === 'bearer') return;
  for (const field of PAIR_FIELDS) {
    if (http[field] === undefined) report(['http', field], HEADER_NAME);
  }
  if (http.client_id_header !== undefined && http.client_id_header === http.secret_header) {
    report(['http', 'secret_header'], 'another header than client_id_header');
  }
}

const BEARER_FIELDS = ['header', 'schemes'] as const;
const PAIR_FIELDS = ['client_id_header', 'secret_header'] as const;

function judgeDistinctNames(list: readonly KeyspaceFields[], { sound, report }: Findings): void {
  const names = list.map((fields, index) => (sound(index) && sound(index, 'name') ? fields.name : undefined));
  for (const index of repeatsOf(names)) {
    report([index, 'name'], `a name of its own: keyspaces[${names.indexOf(names[index])}] has it`);
  }
}

// A prefix names the keyspace of a token. Where there is none the request must name it, so that nothing can clash.
function judgePrefixes(list: readonly KeyspaceFields[], { sound, report }: Findings): void {
  const prefixes = list.map((fields, index) => (sound(index) && sound(index, 'prefix') ? fields.prefix : ''));
  for (const [index, prefix] of prefixes.entries()) {
    const clash = prefixes
      .slice(0, index)
      .findIndex((other) => other !== '' && (other.startsWith(prefix) || prefix.startsWith(other)));
    if (prefix === '' || clash < 0) continue;
    report(
      [index, 'prefix'],
      `a prefix that neither begins another nor goes on from it: keyspaces[${clash}] has "${String(prefixes[clash])}"`,
    );
  }
}

function oneOfText(values: readonly string[]): string {
  return `one of ${[...new Set(values)].join(', ')}`;
}

function toKeyspace(fields: KeyspaceFields): Keyspace {
  const { names, types, expiration } = fields;
  return {
    name: fields.name,
    credential: {
      kind: fields.credential,
      prefix: fields.prefix,
      bodyLength: fields.body_length,
      display: fields.display,
    },
    ...(fields.public_id_prefix !== undefined && { publicIdPrefix: fields.public_id_prefix }),
    names: { required: names.required, unique: names.unique, default: names.default ?? '' },
    types: { allowed: types.allowed, ...(types.default !== undefined && { default: types.default }) },
    expiration: {
      ...(expiration.default !== undefined && { defaultMs: expiration.default }),
      ...(expiration.max !== undefined && { maxMs: expiration.max }),
    },
    ...(fields.overlap_max !== undefined && { overlapMaxMs: fields.overlap_max }),
    managePermissions: fields.manage_permissions,
    plans: toPlans(fields.plans ?? { [IMPLICIT_PLAN]: {} }),
    defaultPlan: fields.default_plan ?? IMPLICIT_PLAN,
    cacheTtlMs: fields.cache_ttl,
    ...(fields.legacy && { legacy: fields.legacy }),
    ...(fields.http && { http: toHttpRules(fields.http) }),
  };
}

function toPlans(plans: NonNullable<KeyspaceFields['plans']>): ReadonlyMap<string, Plan> {
  return new Map(
    Object.entries(plans).map(([name, { key_limit, requests_per_minute }]) => [
      name,
      {
        name,
        ...(key_limit !== undefined && { keyLimit: key_limit }),
        ...(requests_per_minute !== undefined && { requestsPerMinute: requests_per_minute }),
      },
    ]),
  );
}

function toHttpRules(http: NonNullable<KeyspaceFields['http']>): HttpRules {
  const { header = 'authorization', client_id_header, secret_header, refusal } = http;
  const paired = client_id_header !== undefined && secret_header !== undefined;
  return {
    credential: paired
      ? { kind: 'pair', clientIdHeader: client_id_header, secretHeader: secret_header }
      : { kind: 'bearer', header, schemes: http.schemes ?? [header === 'authorization' ? 'bearer' : 'raw'] },
    refusal: { status: refusal.status, contentType: refusal.content_type, body: refusal.body },
    rateLimitHeaders: http.rate_limit_headers,
  };
}
