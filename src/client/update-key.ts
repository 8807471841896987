import { Key as KeyMessage } from '../gen/keyreeve/v1/key.js';
import { KeyServiceService, type UpdateKeyRequest } from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import { type Change, toChangeFields } from './change.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Enforcement, type Key, type KeySelector, toEnforcement, toKey, toSelectorMessage } from './key.js';
import type { Answer } from './refusal.js';
import { toTimestamp } from './times.js';

export interface UpdateKey extends Change {
  readonly selector: KeySelector;
  /** What is named is changed, and nothing else. Labels and scopes are replaced whole. */
  readonly set: {
    readonly name?: string | undefined;
    readonly labels?: Readonly<Record<string, string>> | undefined;
    readonly scopes?: readonly string[] | undefined;
    /** Null: it never expires. */
    readonly expireTime?: Date | null | undefined;
    readonly disabled?: boolean | undefined;
  };
  /** The key must still have it (`ETAG_MISMATCH`). Absent: not compared. */
  readonly etag?: string | undefined;
}

export interface UpdatedKey {
  readonly key: Key;
  readonly enforcement: Enforcement;
}

export async function updateKey(calls: Calls, ask: UpdateKey, deadline: Deadline): Promise<Answer<UpdatedKey>> {
  const { name, labels, scopes, expireTime, disabled } = ask.set;
  const request: UpdateKeyRequest = {
    ...toChangeFields(ask),
    selector: toSelectorMessage(ask.selector),
    key: KeyMessage.fromPartial({
      name: name ?? '',
      labels: new Map(Object.entries(labels ?? {})),
      scopes: [...(scopes ?? [])],
      expireTime: expireTime ? toTimestamp(expireTime) : undefined,
      disabled: disabled ?? false,
    }),
    updateMask: namesOf({ name, labels, scopes, expire_time: expireTime, disabled }),
    etag: ask.etag ?? '',
  };
  const updated = await calls.change(KeyServiceService.updateKey, request, deadline);
  if (!updated.ok) return updated;
  const { key, enforcement } = updated.response;
  return { ok: true, key: toKey(given(key)), enforcement: toEnforcement(given(enforcement)) };
}

function namesOf(fields: Readonly<Record<string, unknown>>): string[] {
  return Object.keys(fields).filter((name) => fields[name] !== undefined);
}
