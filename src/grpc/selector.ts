import type { KeySelector as KeySelectorMessage } from '../gen/keyreeve/v1/key.js';
import { parseName } from '../keys/fields.js';
import { isKeyId } from '../keys/ids.js';
import { type Refusal, isRefusal, refuseArgument } from '../keys/refusal.js';
import type { KeySelector } from '../keys/select-key.js';

/** A selector in normal form. One that no key can have is refused as one that selects none: KEY_NOT_FOUND. */
export function parseSelector(message: KeySelectorMessage | undefined): KeySelector | Refusal {
  const selector = message?.selector;
  if (!selector || selector.value === '') {
    return refuseArgument('SELECTOR_REQUIRED', 'selector', 'selector must give a key_id, a name or a client_id');
  }
  switch (selector.$case) {
    case 'keyId':
      return isKeyId(selector.value) ? { by: 'key_id', keyId: selector.value } : { refused: 'KEY_NOT_FOUND' };
    case 'clientId':
      return { by: 'client_id', clientId: selector.value };
    case 'name': {
      const name = parseName(selector.value);
      return isRefusal(name) ? { refused: 'KEY_NOT_FOUND' } : { by: 'name', name };
    }
  }
}
