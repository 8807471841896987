import { typeid } from 'typeid-js';

// TypeID (github.com/jetify-com/typeid): a type, "_", and a UUIDv7 as 26 characters of Crockford's base32.
const SUFFIX = '[0-7][0-9a-hjkmnp-tv-z]{25}';
const KEY_ID = new RegExp(`^key_${SUFFIX}$`);

export const newKeyId = (): string => typeid('key').toString();
export const newClientId = (): string => typeid('client').toString();
export const newEventId = (): string => typeid('evt').toString();

export const isKeyId = (text: string): boolean => KEY_ID.test(text);

/** `metlo` and `key_01h…` make `metlo.01h…`. */
export function publicIdOf(prefix: string, keyId: string): string {
  return `${prefix}.${keyId.slice('key_'.length)}`;
}
