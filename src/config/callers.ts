/** The callers file: who may call, in which roles, for which keyspaces and organizations. What no entry allows is denied. */
import { createHash, randomBytes } from 'node:crypto';
import { stringify } from 'yaml';
import { z } from 'zod';

import { parseOrganizationId } from '../keys/fields.js';
import type { Keyspace } from '../keys/keyspace.js';
import { isRefusal } from '../keys/refusal.js';
import { Secret } from '../keys/secret.js';
import { keyspaceName, permission } from './keyspaces.js';
import {
  across,
  type Findings,
  type Hides,
  judgeInput,
  mapping,
  oneOf,
  type Problem,
  repeatsOf,
  text,
} from './problems.js';
import { parseYaml } from './yaml.js';

export const ROLES = ['verifier', 'provisioner', 'auditor', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** An authenticated service, and what it may do. */
export interface Caller {
  /** `[A-Za-z0-9._-]{1,64}`: the `caller` of events. */
  readonly name: string;
  readonly roles: ReadonlySet<Role>;
  readonly keyspaces: Scope;
  readonly organizations: Scope;
  /** Whether it states, and vouches for, the actor on whose behalf it acts. Otherwise it is the actor itself. */
  readonly mayAssertActor: boolean;
  /** Those that it has as an actor itself. */
  readonly permissions: readonly string[];
}

export type Scope = 'all' | ReadonlySet<string>;

/** How a caller is known: by its token, by a name in its certificate, or by both together. */
interface KnownBy {
  readonly caller: Caller;
  /** The SHA-256 of its token, 64 lowercase hex digits. */
  readonly tokenDigest?: string;
  /** As in `Shown`. */
  readonly certificateName?: string;
}

export interface Callers {
  readonly size: number;
  readonly byTokenDigest: ReadonlyMap<string, KnownBy>;
  /** Those that need no token. */
  readonly byCertificateName: ReadonlyMap<string, KnownBy>;
}

/** What somebody who calls has shown. */
export interface Shown {
  /** The text after `Bearer`. */
  readonly token?: string;
  /** Of a certificate that was checked: `URI:spiffe://…` and `DNS:…`. */
  readonly certificateNames: readonly string[];
}

/** Everyone, where there is no callers file. */
export const LOCAL_CALLER: Caller = {
  name: 'local',
  roles: new Set(ROLES),
  keyspaces: 'all',
  organizations: 'all',
  mayAssertActor: true,
  permissions: [],
};

/** @param keyspaces those that the file may name; undefined where they are not known, and then any may be named */
export function parseCallers(
  yamlText: string,
  keyspaces: ReadonlyMap<string, Keyspace> | undefined,
): Callers | Problem[] {
  const file = parseYaml(fileSchema(keyspaces), yamlText, hides);
  if (Array.isArray(file)) return file;
  const known = file.callers.map(toKnownBy);
  return {
    size: known.length,
    byTokenDigest: new Map(known.flatMap((one) => (one.tokenDigest === undefined ? [] : [[one.tokenDigest, one]]))),
    byCertificateName: new Map(
      known.flatMap((one) =>
        one.tokenDigest === undefined && one.certificateName !== undefined ? [[one.certificateName, one]] : [],
      ),
    ),
  };
}

/**
 * The caller who has shown all that its entry states. A token says who it is; without one a name in the certificate does,
 * and none where two of the names are of different callers.
 */
export function findCaller(callers: Callers, { token, certificateNames }: Shown): Caller | undefined {
  if (token === undefined) {
    const [known, other] = certificateNames.flatMap((name) => callers.byCertificateName.get(name) ?? []);
    return other ? undefined : known?.caller;
  }
  const known = callers.byTokenDigest.get(digestOf(token));
  if (known?.certificateName !== undefined && !certificateNames.includes(known.certificateName)) return undefined;
  return known?.caller;
}

export interface NewCallerToken {
  /** For the caller, and for no one else to keep. */
  readonly token: Secret;
  readonly tokenSha256: string;
  /** The line for the callers file, under `callers:`. */
  readonly line: string;
}

/** What a new caller is allowed, as the file will say it. */
export interface CallerGrant {
  readonly name: string;
  readonly roles: readonly string[];
  /** `['*']`: all. */
  readonly keyspaces: readonly string[];
  /** `['*']`: all. */
  readonly organizations: readonly string[];
  readonly mayAssertActor?: boolean;
  readonly permissions?: readonly string[];
}

/** Makes a token of 256 random bits. @returns problems where the file would not take such a line */
export function newCallerToken(grant: CallerGrant): NewCallerToken | Problem[] {
  const token = new Secret(TOKEN_PREFIX + randomBytes(32).toString('base64url'));
  const tokenSha256 = digestOf(token.reveal());
  const entry = {
    name: grant.name,
    token_sha256: tokenSha256,
    roles: grant.roles,
    keyspaces: grant.keyspaces,
    organizations: grant.organizations,
    ...(grant.mayAssertActor && { may_assert_actor: true }),
    ...(grant.permissions?.length && { permissions: grant.permissions }),
  };
  const judged = judgeInput(callerSchema(undefined), entry, hides);
  if (Array.isArray(judged)) return judged;
  return { token, tokenSha256, line: `  - ${stringify(entry, { collectionStyle: 'flow', lineWidth: 0 }).trimEnd()}` };
}

const TOKEN_PREFIX = 'krt_';

// A token in the wrong place must not be shown, nor what stands where its digest should.
const hides: Hides = (field, value) =>
  field === 'token_sha256' || (typeof value === 'string' && value.includes(TOKEN_PREFIX));

function fileSchema(keyspaces: ReadonlyMap<string, Keyspace> | undefined) {
  return mapping({
    callers: z
      .array(callerSchema(keyspaces), 'a list of callers')
      .min(1, 'at least one caller; for none leave KEYREEVE_CALLERS unset')
      .check(across(judgeDistinct)),
  });
}

type CallerFields = z.output<ReturnType<typeof callerSchema>>;

function callerSchema(keyspaces: ReadonlyMap<string, Keyspace> | undefined) {
  const [isKeyspace, keyspaceForm] = keyspaces
    ? [(name: string) => keyspaces.has(name), `one of ${[...keyspaces.keys()].join(', ')}`]
    : [(name: string) => keyspaceName.safeParse(name).success, 'the name of a keyspace'];
  const isOrganization = (id: string): boolean => !isRefusal(parseOrganizationId(id));
  return mapping({
    name: text(/^[A-Za-z0-9._-]{1,64}$/, '1 to 64 characters of A-Z a-z 0-9 . _ -').refine(
      (name) => name !== LOCAL_CALLER.name,
      'another name: this is the caller of a server without callers',
    ),
    token_sha256: text(/^[0-9a-f]{64}$/, "the token's SHA-256 as 64 digits of 0-9 a-f")
      .refine((digest) => digest !== digestOf(''), 'the SHA-256 of a token: this is the one of an empty text')
      .optional(),
    spiffe_id: text(SPIFFE_ID, 'a SPIFFE id such as spiffe://example.org/gateway').optional(),
    dns_name: text(DNS_NAME, 'a host name in lower case, without a wildcard').optional(),
    roles: z.array(oneOf(ROLES), `a list of ${ROLES.join(', ')}`).min(1, `at least one of ${ROLES.join(', ')}`),
    keyspaces: scope(isKeyspace, keyspaceForm),
    organizations: scope(isOrganization, '1 to 128 characters of A-Z a-z 0-9 . _ : -'),
    may_assert_actor: z.boolean('true or false').default(false),
    permissions: z.array(permission, 'a list of permissions').default([]),
  }).check(across(judgeKnownBy));
}

// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md
const SPIFFE_ID = /^(?=.{1,2048}$)spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+$/;
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/;

function judgeKnownBy(
  fields: { token_sha256?: string | undefined; spiffe_id?: string | undefined; dns_name?: string | undefined },
  { sound, report }: Findings,
): void {
  if (!sound('token_sha256') || !sound('spiffe_id') || !sound('dns_name')) return;
  const { token_sha256, spiffe_id, dns_name } = fields;
  if (spiffe_id !== undefined && dns_name !== undefined) report(['dns_name'], 'spiffe_id or dns_name, not both');
  if (token_sha256 === undefined && spiffe_id === undefined && dns_name === undefined) {
    report(['token_sha256'], 'token_sha256, spiffe_id or dns_name: how the caller is known');
  }
}

/** A list of names, or `'*'`, bare or alone in the list. None at all is refused: such a caller could do nothing. */
function scope(isName: (text: string) => boolean, form: string) {
  const name = z.string(form).refine((given) => given === ALL || isName(given), form);
  return z
    .preprocess(
      (given) => (given === ALL ? [ALL] : given),
      z.array(name, "'*' or a list of names").min(1, "'*' or at least one name"),
    )
    .refine((given) => given.length === 1 || !given.includes(ALL), "'*' alone, or names alone")
    .transform((given): Scope => (given.includes(ALL) ? 'all' : new Set(given)));
}

const ALL = '*';

function judgeDistinct(list: readonly CallerFields[], { sound, report }: Findings): void {
  for (const field of ['name', 'token_sha256', 'spiffe_id', 'dns_name'] as const) {
    const values = list.map((fields, index) => (sound(index) && sound(index, field) ? fields[field] : undefined));
    for (const index of repeatsOf(values)) {
      report([index, field], `one of its own: callers[${values.indexOf(values[index])}] has it`);
    }
  }
}

function toKnownBy(fields: CallerFields): KnownBy {
  const { token_sha256: tokenDigest, spiffe_id, dns_name } = fields;
  const [certificateName] = [
    ...(spiffe_id === undefined ? [] : [`URI:${spiffe_id}`]),
    ...(dns_name === undefined ? [] : [`DNS:${dns_name}`]),
  ];
  return {
    caller: toCaller(fields),
    ...(tokenDigest !== undefined && { tokenDigest }),
    ...(certificateName !== undefined && { certificateName }),
  };
}

function toCaller(fields: CallerFields): Caller {
  return {
    name: fields.name,
    roles: new Set(fields.roles),
    keyspaces: fields.keyspaces,
    organizations: fields.organizations,
    mayAssertActor: fields.may_assert_actor,
    permissions: fields.permissions,
  };
}

function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}
