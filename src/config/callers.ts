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

export interface Callers {
  /** By the SHA-256 of their tokens, 64 lowercase hex digits. */
  readonly byTokenDigest: ReadonlyMap<string, Caller>;
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
  return { byTokenDigest: new Map(file.callers.map((fields) => [fields.token_sha256, toCaller(fields)])) };
}

/** The caller whose token this is, the text after `Bearer`. */
export function findCaller(callers: Callers, token: string): Caller | undefined {
  return callers.byTokenDigest.get(digestOf(token));
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
    token_sha256: text(/^[0-9a-f]{64}$/, "the token's SHA-256 as 64 digits of 0-9 a-f").refine(
      (digest) => digest !== digestOf(''),
      'the SHA-256 of a token: this is the one of an empty text',
    ),
    roles: z.array(oneOf(ROLES), `a list of ${ROLES.join(', ')}`).min(1, `at least one of ${ROLES.join(', ')}`),
    keyspaces: scope(isKeyspace, keyspaceForm),
    organizations: scope(isOrganization, '1 to 128 characters of A-Z a-z 0-9 . _ : -'),
    may_assert_actor: z.boolean('true or false').default(false),
    permissions: z.array(permission, 'a list of permissions').default([]),
  });
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
  for (const field of ['name', 'token_sha256'] as const) {
    const values = list.map((fields, index) => (sound(index) && sound(index, field) ? fields[field] : undefined));
    for (const index of repeatsOf(values)) {
      report([index, field], `one of its own: callers[${values.indexOf(values[index])}] has it`);
    }
  }
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
