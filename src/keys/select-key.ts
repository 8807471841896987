import { isCurrent, type Key } from './key.js';
import type { Refusal } from './refusal.js';

/** How a request names a key of its organization. */
export type KeySelector =
  | { readonly by: 'key_id'; readonly keyId: string }
  | { readonly by: 'client_id'; readonly clientId: string }
  | { readonly by: 'name'; readonly name: string };

/**
 * Of the keys that a store loaded for a selector, the one that is meant: for a name the current key, else the one
 * revoked last.
 */
export function selectKey(loaded: readonly Key[], selector: KeySelector): Key | Refusal {
  switch (selector.by) {
    case 'key_id':
      return loaded.find((key) => key.keyId === selector.keyId) ?? { refused: 'KEY_NOT_FOUND' };
    case 'client_id':
      return loaded.find((key) => key.clientId === selector.clientId) ?? { refused: 'KEY_NOT_FOUND' };
    case 'name':
      return selectByName(loaded.filter((key) => key.name === selector.name));
  }
}

function selectByName(named: readonly Key[]): Key | Refusal {
  const current = named.filter(isCurrent);
  if (current.length > 1) return { refused: 'NAME_AMBIGUOUS' };
  const revokedLast = named
    .filter((key) => key.standing.kind === 'revoked')
    .sort(byRevokeTime)
    .at(-1);
  return current[0] ?? revokedLast ?? { refused: 'KEY_NOT_FOUND' };
}

function byRevokeTime(a: Key, b: Key): number {
  return revokeTimeMs(a) - revokeTimeMs(b) || a.sequence - b.sequence;
}

function revokeTimeMs(key: Key): number {
  return key.standing.kind === 'revoked' ? key.standing.time.getTime() : 0;
}
