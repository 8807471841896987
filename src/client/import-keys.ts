import {
  type ImportKeysItem,
  type ImportKeysRequest,
  type ImportKeysResult,
  KeyServiceService,
} from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import { type Change, toChangeFields } from './change.js';
import { type Credential, toCredentialMessage } from './credential.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Key, toKey } from './key.js';
import { type Answer, type Refusal, toItemRefusal } from './refusal.js';
import { toTimestamp } from './times.js';

export interface ImportKeys extends Change {
  /** At most 500. */
  readonly keys: readonly KeyToImport[];
}

/** A key that was issued elsewhere, by its credential or by the digest that it was stored under. */
export type KeyToImport = (
  | { readonly credential: Credential; readonly digest?: undefined }
  | {
      /** 32 bytes. */
      readonly digest: Uint8Array;
      /** Where the keyspace issues client ids and secrets. */
      readonly clientId?: string | undefined;
      /** What may be shown of the credential. */
      readonly display?: string | undefined;
      readonly credential?: undefined;
    }
) & {
  readonly name?: string | undefined;
  readonly type?: string | undefined;
  readonly scopes?: readonly string[] | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly createTime?: Date | undefined;
  readonly expireTime?: Date | undefined;
  readonly lastUseTime?: Date | undefined;
  readonly disabled?: boolean | undefined;
};

/**
 * What became of one key. One that could not be imported this time is told as a refusal is, with its code: what is
 * UNAVAILABLE or ABORTED is worth repeating the call for, which imports nothing twice.
 */
export type ImportResult = { readonly ok: true; readonly key: Key; readonly alreadyImported: boolean } | Refusal;

export interface ImportedKeys {
  /** In the order of the keys. */
  readonly results: readonly ImportResult[];
}

export async function importKeys(calls: Calls, ask: ImportKeys, deadline: Deadline): Promise<Answer<ImportedKeys>> {
  const request: ImportKeysRequest = { ...toChangeFields(ask), keys: ask.keys.map(toItem) };
  const imported = await calls.change(KeyServiceService.importKeys, request, deadline);
  return imported.ok ? { ok: true, results: imported.response.results.map(toResult) } : imported;
}

function toItem(key: KeyToImport): ImportKeysItem {
  const { createTime, expireTime, lastUseTime } = key;
  return {
    ...toSecret(key),
    name: key.name ?? '',
    type: key.type ?? '',
    scopes: [...(key.scopes ?? [])],
    labels: new Map(Object.entries(key.labels ?? {})),
    createTime: createTime && toTimestamp(createTime),
    expireTime: expireTime && toTimestamp(expireTime),
    lastUseTime: lastUseTime && toTimestamp(lastUseTime),
    disabled: key.disabled ?? false,
  };
}

function toSecret(key: KeyToImport): Pick<ImportKeysItem, 'secret' | 'clientId' | 'display'> {
  if (key.credential !== undefined) {
    return { secret: { $case: 'credential', value: toCredentialMessage(key.credential) }, clientId: '', display: '' };
  }
  const { digest, clientId = '', display = '' } = key;
  return { secret: { $case: 'digest', value: Buffer.from(digest) }, clientId, display };
}

function toResult({ result, alreadyImported }: ImportKeysResult): ImportResult {
  const told = given(result);
  return told.$case === 'key' ? { ok: true, key: toKey(told.value), alreadyImported } : toItemRefusal(told.value);
}
