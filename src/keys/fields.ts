/**
 * The form of what callers send, one function a field: each answers the normalized value or says which rule is broken.
 * The bounds together keep every event below 32 KiB (see the property test).
 */
import { type ArgumentReason, type ArgumentRefusal, refuseArgument } from './refusal.js';

export const NAME_LENGTH_MAX = 200;
const SCOPES_MAX = 50;
export const SCOPES_BYTES_MAX = 3000;
const LABELS_MAX = 32;
export const LABELS_BYTES_MAX = 3000;
export const ACTOR_ID_LENGTH_MAX = 200;
export const REASON_DETAIL_LENGTH_MAX = 500;

const ORGANIZATION_ID = /^[A-Za-z0-9._:-]{1,128}$/;
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;
const SCOPE = /^[A-Za-z0-9._:/*-]{1,100}$/;
const LABEL_KEY = /^[a-z0-9][a-z0-9._/-]{0,62}$/;
const CONTROL = /\p{Cc}/u;
/** The protobuf runtime puts it, silently, in the place of bytes that are not UTF-8: text that holds it is refused. */
export const REPLACEMENT = '\ufffd';

export function parseOrganizationId(text: string): string | ArgumentRefusal {
  if (ORGANIZATION_ID.test(text)) return text;
  return refuseArgument(
    'ORGANIZATION_ID_INVALID',
    'organization_id',
    'organization_id must be 1 to 128 characters of A-Z a-z 0-9 . _ : -',
  );
}

/** @returns undefined for an empty text: no request id was given */
export function parseRequestId(text: string): string | undefined | ArgumentRefusal {
  if (text === '') return undefined;
  if (REQUEST_ID.test(text)) return text;
  return refuseArgument(
    'REQUEST_ID_INVALID',
    'request_id',
    'request_id must be 1 to 128 printable ASCII characters without spaces; a UUID is a good choice',
  );
}

/** Trimmed and in Unicode NFC; empty where none was given. */
export function parseName(text: string, field = 'name'): string | ArgumentRefusal {
  const name = text.trim().normalize('NFC');
  if (name.includes(REPLACEMENT)) return notUtf8(field);
  if (CONTROL.test(name)) return refuseArgument('NAME_INVALID', field, `${field} must not hold control characters`);
  if (lengthOf(name) > NAME_LENGTH_MAX) {
    return refuseArgument('NAME_INVALID', field, `${field} must be at most ${NAME_LENGTH_MAX} characters long`);
  }
  if (name === '' && text !== '') {
    return refuseArgument('NAME_INVALID', field, `${field} must not be white space alone`);
  }
  return name;
}

/** Sorted, each once: two requests that differ in order alone are the same request. */
export function parseScopes(scopes: readonly string[], field = 'scopes'): readonly string[] | ArgumentRefusal {
  // Most verifications require none.
  if (scopes.length === 0) return scopes;
  const refuse = (message: string): ArgumentRefusal => refuseArgument('SCOPES_INVALID', field, message);
  const bad = scopes.findIndex((scope) => !SCOPE.test(scope));
  if (bad >= 0) {
    return refuseArgument(
      'SCOPES_INVALID',
      `${field}[${bad}]`,
      `${field}[${bad}] must be 1 to 100 characters of A-Z a-z 0-9 . _ : / * -`,
    );
  }
  const distinct = [...new Set(scopes)].sort();
  if (distinct.length > SCOPES_MAX) return refuse(`${field} must be at most ${SCOPES_MAX}`);
  if (distinct.join('').length > SCOPES_BYTES_MAX) {
    return refuse(`${field} must be at most ${SCOPES_BYTES_MAX} bytes in all`);
  }
  return distinct;
}

/** Sorted by key. A map, since a label may be called `refused`. */
export function parseLabels(
  labels: ReadonlyMap<string, string>,
  field = 'labels',
): ReadonlyMap<string, string> | ArgumentRefusal {
  const refuse = (message: string): ArgumentRefusal => refuseArgument('LABELS_INVALID', field, message);
  const entries = [...labels].sort(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length > LABELS_MAX) return refuse(`${field} must be at most ${LABELS_MAX}`);
  for (const [key, value] of entries) {
    if (!LABEL_KEY.test(key)) {
      return refuse(
        `a key of ${field} must be 1 to 63 characters of a-z 0-9 . _ / - and begin with a letter or a digit`,
      );
    }
    if (value.includes(REPLACEMENT)) return notUtf8(`${field}.${key}`);
    if (CONTROL.test(value)) return refuse(`${field}.${key} must not hold control characters`);
  }
  const bytes = entries.reduce((sum, [key, value]) => sum + key.length + Buffer.byteLength(value), 0);
  if (bytes > LABELS_BYTES_MAX) return refuse(`${field} must be at most ${LABELS_BYTES_MAX} bytes in all`);
  return new Map(entries);
}

/** Free text of one line, trimmed, within a length. */
export function parseText(
  text: string,
  { field, lengthMax, refused }: { field: string; lengthMax: number; refused: ArgumentReason },
): string | ArgumentRefusal {
  const trimmed = text.trim();
  if (trimmed.includes(REPLACEMENT)) return notUtf8(field);
  if (CONTROL.test(trimmed)) return refuseArgument(refused, field, `${field} must not hold control characters`);
  if (lengthOf(trimmed) > lengthMax) {
    return refuseArgument(refused, field, `${field} must be at most ${lengthMax} characters long`);
  }
  return trimmed;
}

export function notUtf8(field: string): ArgumentRefusal {
  return refuseArgument('TEXT_INVALID', field, `${field} must be valid UTF-8 without U+FFFD`);
}

/** In code points: a character outside the basic plane counts as one. */
function lengthOf(text: string): number {
  return Array.from(text).length;
}
