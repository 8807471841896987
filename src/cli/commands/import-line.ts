/** One line of an import: a JSON object that tells of one key. Nothing that is said of it repeats what it holds. */
import { status } from '@grpc/grpc-js';
import { z } from 'zod';

import { Failure } from '../../gen/keyreeve/v1/failure.js';
import { ImportKeysItem } from '../../gen/keyreeve/v1/key_service.js';
import { parseOrganizationId } from '../../keys/fields.js';
import { isRefusal } from '../../keys/refusal.js';
import { parseTime } from '../output/times.js';

/** A key that a line tells of. */
export interface ImportLine {
  readonly organizationId: string;
  readonly item: ImportKeysItem;
}

/** Far above what the bounds of the fields leave for, be every character escaped. */
export const LINE_BYTES_MAX = 64 * 1024;

/**
 * @param bytes undefined for a line that is too long
 * @param organizationId the one of all lines; absent: each names its own
 * @returns undefined for a blank line; a failure where the line is at fault
 */
export function parseImportLine(
  bytes: Buffer | undefined,
  organizationId: string | undefined,
): ImportLine | Failure | undefined {
  if (!bytes) return refuse('LINE_INVALID', '', `the line is longer than ${LINE_BYTES_MAX / 1024} KiB`);
  const text = decode(bytes);
  if (text === undefined) return refuse('TEXT_INVALID', '', 'the line is not valid UTF-8');
  if (text.trim() === '') return undefined;
  const value = parseJson(text);
  if (value === undefined) return refuse('LINE_INVALID', '', 'the line is not JSON');
  const parsed = lineShape.safeParse(value);
  if (!parsed.success) return toFailure(parsed.error.issues[0]);
  const organization = organizationOf(parsed.data.organization, organizationId);
  if (isFailure(organization)) return organization;
  const secret = secretOf(parsed.data);
  return isFailure(secret) ? secret : { organizationId: organization, item: toItem(parsed.data, secret) };
}

export function isFailure(parsed: unknown): parsed is Failure {
  return typeof parsed === 'object' && parsed !== null && 'reason' in parsed;
}

/** Whether a line holds what a key is used with, also where it is at fault otherwise. */
export function holdsSecret(bytes: Buffer): boolean {
  const value = parseJson(decode(bytes) ?? '');
  if (value === undefined) return /"(token|secret)"/.test(bytes.toString('latin1'));
  return typeof value === 'object' && value !== null && ('token' in value || 'secret' in value);
}

const HEX = /^[0-9a-fA-F]{64}$/;
const BASE64 = /^[0-9A-Za-z+/_-]{43}=?$/;
// What the service would find not to be text: a lone surrogate becomes U+FFFD on its way.
const NO_TEXT = /[\ufffd\p{Cs}]/u;

const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined);
const text = z.string().refine((value) => !NO_TEXT.test(value));
const time = z.string().transform((value, context) => {
  try {
    return parseTime(value);
  } catch {
    context.issues.push({ code: 'custom', input: value });
    return z.NEVER;
  }
});
const digest = z
  .string()
  .refine((value) => HEX.test(value) || BASE64.test(value))
  .transform((value) => Buffer.from(value, HEX.test(value) ? 'hex' : 'base64'));

// Entries, since a record would lose the name `__proto__` without a word: which names a label may have, the service says.
const labels = z
  .custom<object>((value) => typeof value === 'object' && value !== null && !Array.isArray(value))
  .transform((value) => Object.entries(value))
  .pipe(z.array(z.tuple([text, text])));

const lineShape = z.strictObject({
  organization: optional(text),
  digest: optional(digest),
  token: optional(text.min(1)),
  client_id: optional(text.min(1)),
  secret: optional(text.min(1)),
  name: optional(text),
  type: optional(text),
  display: optional(text),
  scopes: optional(z.array(text)),
  labels: optional(labels),
  create_time: optional(time),
  expire_time: optional(time),
  last_use_time: optional(time),
  disabled: optional(z.boolean()),
});
type Fields = z.infer<typeof lineShape>;

const EXPECTED: Readonly<Record<keyof Fields, string>> = {
  organization: 'text',
  digest: '64 hexadecimal digits, or base64 of 32 bytes',
  token: 'text',
  client_id: 'text',
  secret: 'text',
  name: 'text',
  type: 'text',
  display: 'text',
  scopes: 'a list of texts',
  labels: 'an object of texts',
  create_time: 'a time as in RFC 3339, such as 2027-01-01T00:00:00Z',
  expire_time: 'a time as in RFC 3339, such as 2027-01-01T00:00:00Z',
  last_use_time: 'a time as in RFC 3339, such as 2027-01-01T00:00:00Z',
  disabled: 'true or false',
};

function toFailure(issue: z.core.$ZodIssue | undefined): Failure {
  const field = String(issue?.path[0] ?? '');
  if (Object.hasOwn(EXPECTED, field)) {
    const expected = EXPECTED[field as keyof Fields];
    return refuse(field === 'digest' ? 'DIGEST_INVALID' : 'LINE_INVALID', field, `expected ${expected}`);
  }
  // The name of a field may be a secret that was put in the wrong place.
  if (issue?.code === 'unrecognized_keys') {
    return refuse('LINE_INVALID', '', `unknown field; expected only ${Object.keys(EXPECTED).join(', ')}`);
  }
  return refuse('LINE_INVALID', '', 'expected a JSON object');
}

function organizationOf(named: string | undefined, ofAll: string | undefined): string | Failure {
  const refused = (message: string) => refuse('ORGANIZATION_ID_INVALID', 'organization', message);
  if (ofAll !== undefined) {
    return named === undefined || named === ofAll ? ofAll : refused('it differs from --organization');
  }
  if (named === undefined) return refused('required where --organization is not given');
  const organizationId = parseOrganizationId(named);
  return isRefusal(organizationId) ? refused('must be 1 to 128 characters of A-Z a-z 0-9 . _ : -') : organizationId;
}

function secretOf({ digest, token, client_id: clientId, secret }: Fields): ImportKeysItem['secret'] | Failure {
  const expected = 'expected one of: digest; token; client_id and secret; client_id and digest';
  const given = [digest, token, secret].filter((value) => value !== undefined);
  if (given.length !== 1) return refuse('DIGEST_INVALID', '', expected);
  if (digest) return { $case: 'digest', value: digest };
  if (token !== undefined && clientId === undefined) {
    return { $case: 'credential', value: { kind: { $case: 'bearerToken', value: token } } };
  }
  if (secret !== undefined && clientId !== undefined) {
    return { $case: 'credential', value: { kind: { $case: 'client', value: { clientId, secret } } } };
  }
  return refuse('DIGEST_INVALID', '', expected);
}

function toItem(fields: Fields, secret: ImportKeysItem['secret']): ImportKeysItem {
  return ImportKeysItem.fromPartial({
    secret,
    // A credential brings its own.
    clientId: secret?.$case === 'digest' ? (fields.client_id ?? '') : '',
    name: fields.name ?? '',
    type: fields.type ?? '',
    display: fields.display ?? '',
    scopes: fields.scopes ?? [],
    labels: new Map(fields.labels),
    createTime: fields.create_time,
    expireTime: fields.expire_time,
    lastUseTime: fields.last_use_time,
    disabled: fields.disabled ?? false,
  });
}

function refuse(reason: string, field: string, message: string): Failure {
  return Failure.create({ code: status.INVALID_ARGUMENT, reason, field, message });
}

function decode(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
