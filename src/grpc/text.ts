import { notUtf8, REPLACEMENT } from '../keys/fields.js';
import type { ArgumentRefusal } from '../keys/refusal.js';

/**
 * Refuses a request that holds text which is not UTF-8, wherever it is: stored or compared, it would not be the text
 * that was sent. Credentials are left out: one that is not UTF-8 was never issued, which is a decision. So are the
 * items of a request for several: each is checked by itself, and fails alone. And a gateway's request, whose headers a
 * client may send in any encoding.
 */
export function checkText(request: object): ArgumentRefusal | undefined {
  if (!holdsReplacement(request, true)) return undefined;
  const field = findReplacement(request, '');
  return field === undefined ? undefined : notUtf8(field);
}

// Of ImportKeysRequest, BatchVerifyKeysRequest, CheckRequest, and of a gateway that asks over HTTP.
const LEFT_OUT = new Set(['keys', 'requests', 'attributes', 'fields']);

/** Whether there may be one: quick, and asked of each request, of which hardly one has it. */
function holdsReplacement(value: unknown, isRequest = false): boolean {
  if (typeof value === 'string') return value.includes(REPLACEMENT);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return false;
  if (Array.isArray(value)) return value.some((item) => holdsReplacement(item));
  if (value instanceof Map) return [...value].flat().some((item) => holdsReplacement(item));
  const fields = value as Record<string, unknown>;
  for (const name in fields) {
    if (name === 'credential' || (isRequest && LEFT_OUT.has(name))) continue;
    if (holdsReplacement(fields[name])) return true;
  }
  return false;
}

/** The path of the first text at fault, in the proto's names. Keys of maps are text too, and are not repeated. */
function findReplacement(value: unknown, path: string): string | undefined {
  if (typeof value === 'string') return value.includes(REPLACEMENT) ? path : undefined;
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return undefined;
  if (Array.isArray(value)) return first(value, (item, at) => findReplacement(item, `${path}[${at}]`));
  if (value instanceof Map) return first([...value].flat(), (item) => findReplacement(item, path));
  return first(Object.entries(value), ([name, field]) => {
    if (name === 'credential' || (path === '' && LEFT_OUT.has(name))) return undefined;
    if (!isOneof(field)) return findReplacement(field, join(path, name));
    // A oneof's own name is no field of the proto: its case is.
    return field.$case === 'credential' ? undefined : findReplacement(field.value, join(path, field.$case));
  });
}

function first<T>(items: readonly T[], find: (item: T, at: number) => string | undefined): string | undefined {
  for (const [at, item] of items.entries()) {
    const found = find(item, at);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isOneof(value: unknown): value is { $case: string; value: unknown } {
  return typeof value === 'object' && value !== null && '$case' in value;
}

function join(path: string, name: string): string {
  const field = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return path === '' ? field : `${path}.${field}`;
}
