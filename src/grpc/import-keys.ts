import { setImmediate as nextTurn } from 'node:timers/promises';

import type { Credential } from '../gen/keyreeve/v1/credential.js';
import type { Failure } from '../gen/keyreeve/v1/failure.js';
import {
  type ImportKeysItem,
  type ImportKeysRequest,
  type ImportKeysResponse,
  ImportKeysResult,
} from '../gen/keyreeve/v1/key_service.js';
import type { Load } from '../keys/change.js';
import { claimRequest } from '../keys/claim-request.js';
import { nameFor } from '../keys/new-key.js';
import { displayOfUnknown, takeOver } from '../keys/credential.js';
import { toHex } from '../keys/digest.js';
import type { Mutation } from '../keys/event.js';
import { parseLabels, parseName, parseScopes, parseText } from '../keys/fields.js';
import { newEventId, newKeyId } from '../keys/ids.js';
import { type ImportedKey, type ImportKey, importKey } from '../keys/import-key.js';
import type { Key } from '../keys/key.js';
import type { Keyspace } from '../keys/keyspace.js';
import { digestsOf, digestToStore, type Peppers } from '../keys/pepper.js';
import { type ArgumentRefusal, isRefusal, type Refusal, refuseArgument } from '../keys/refusal.js';
import { Secret } from '../keys/secret.js';
import { StoreFault } from '../store/faults.js';
import { permitChange, toTenant } from './callers.js';
import { orRefuse, Refused, toFailure, Unwanted } from './errors.js';
import { parseTimestamp } from './expiration.js';
import { toKeyMessage } from './messages.js';
import { commit, toAsk, toLoad } from './mutation.js';
import type { Parts } from './parts.js';
import { checkText } from './text.js';
import type { Call, Unary } from './unary.js';

const ITEMS_MAX = 500;
const DIGEST_BYTES = 32;
/** Clients take 4 MiB, unless they are told otherwise: with the last key, and a failure for each of the others, it is less. */
const ANSWER_BYTES_MAX = 3 * 1024 * 1024;
const DISPLAY_LENGTH_MAX = 64;
const CLIENT_ID = /^[\x21-\x7e]{1,128}$/;

export function handleImportKeys(parts: Parts): Unary<ImportKeysRequest, ImportKeysResponse> {
  const { keyspaces, peppers } = parts;
  return async (request, call) => {
    const tenant = toTenant(request, call.caller, keyspaces);
    const { keyspace } = tenant;
    call.note({ keyspace: keyspace.name });
    permitChange(tenant);
    const items = orRefuse(parseItems(request.keys, keyspace));
    const { mutation } = toAsk('ImportKeys', request, tenant, call, () => ({
      items: items.map((item) => toComparable(item, peppers)),
    }));

    if (mutation.request) {
      orRefuse(await commit(toLoad(mutation), (state) => claimRequest(state, mutation), call, parts));
    }
    const outcomes: Outcome[] = [];
    let answerBytes = 0;
    for (const item of items) {
      const outcome =
        answerBytes < ANSWER_BYTES_MAX ? await importItem(item, mutation, keyspace, call, parts) : NO_ROOM;
      outcomes.push(outcome);
      answerBytes += ImportKeysResult.encode(toResult(outcome, undefined, parts.clock.now())).finish().length;
      // The embedded store answers without ever waiting: verifications would wait for the whole import.
      await nextTurn();
    }
    const unrecorded = await recordUses(outcomes, call, parts);
    const now = parts.clock.now();
    return { results: outcomes.map((outcome) => toResult(outcome, unrecorded, now)) };
  };
}

/** One item, in normal form. */
interface Item extends Omit<ImportKey, 'mutation' | 'digest'> {
  readonly sha256: Uint8Array;
  readonly lastUseTime?: Date;
  /** Which field told the digest. */
  readonly secretField: 'digest' | 'credential';
}

type Outcome = (ImportedKey & { readonly lastUseTime?: Date }) | Failure;

/** Commits one item. What it is refused for, and what the store fails in, is its own failure: the next may do better. */
async function importItem(
  item: Item | Refusal,
  mutation: Mutation,
  keyspace: Keyspace,
  call: Call,
  parts: Parts,
): Promise<Outcome> {
  if (isRefusal(item)) return toFailure(new Refused(item));
  const { clock, peppers } = parts;
  const { lastUseTime, secretField } = item;
  const draw = { now: clock.now(), keyId: newKeyId(), eventId: newEventId() };
  const ask: ImportKey = { ...item, mutation, digest: digestToStore(item.sha256, peppers) };
  try {
    if (lastUseTime) orRefuse(judgeLastUse(lastUseTime, draw.now));
    const load = loadFor(item, mutation, keyspace, peppers);
    const imported = orRefuse(await commit(load, (state) => importKey(state, ask, keyspace, draw), call, parts));
    return { ...imported, ...(lastUseTime && { lastUseTime }) };
  } catch (error) {
    if (error instanceof Refused) {
      const failure = toFailure(error);
      return error.refusal.refused === 'DIGEST_TAKEN' && secretField === 'credential'
        ? { ...failure, field: secretField }
        : failure;
    }
    if (error instanceof StoreFault) return toFailure(error);
    // Earlier items are stored, so the call must answer for them.
    if (error instanceof Unwanted && error.why === 'DEADLINE_EXCEEDED') return OUT_OF_TIME;
    throw error;
  }
}

const NO_ROOM = toFailure(
  new Refused(
    refuseArgument(
      'TOO_MANY_ITEMS',
      'keys',
      'the answer has no room for more keys, and nothing was done for this one: send it in another request',
    ),
  ),
);

const OUT_OF_TIME = toFailure(new StoreFault('unavailable', 'the deadline passed before the item had its turn'));

function loadFor({ sha256, clientId, name }: Item, mutation: Mutation, keyspace: Keyspace, peppers: Peppers): Load {
  const wanted = nameFor(name, keyspace);
  return {
    organization: mutation.organization,
    digests: digestsOf(toHex(sha256), peppers).map(({ bytes }) => bytes),
    ...(keyspace.names.unique && !isRefusal(wanted) && { name: wanted }),
    ...(clientId !== undefined && { selector: { by: 'client_id', clientId } }),
  };
}

/** Notes when the imported keys were last used. Answers the failure of those that have such a time, where there is one. */
async function recordUses(
  outcomes: readonly Outcome[],
  { deadline }: Pick<Call, 'deadline'>,
  { store }: Pick<Parts, 'store'>,
): Promise<Failure | undefined> {
  const uses = new Map<string, Date>();
  for (const outcome of outcomes) {
    if ('code' in outcome || !outcome.lastUseTime) continue;
    const { keyId } = outcome.key;
    uses.set(keyId, later(outcome.lastUseTime, uses.get(keyId)));
  }
  if (uses.size === 0) return undefined;
  try {
    await store.recordUses(uses, deadline);
    return undefined;
  } catch (error) {
    if (error instanceof StoreFault) return toFailure(error);
    throw error;
  }
}

/** @param unrecorded what to tell where a last use should have been noted */
function toResult(outcome: Outcome, unrecorded: Failure | undefined, now: Date): ImportKeysResult {
  if ('code' in outcome) return { result: { $case: 'failure', value: outcome }, alreadyImported: false };
  const { key, alreadyImported, lastUseTime } = outcome;
  if (!lastUseTime) return { result: { $case: 'key', value: toKeyMessage(key, now) }, alreadyImported };
  if (unrecorded) return { result: { $case: 'failure', value: unrecorded }, alreadyImported: false };
  const used: Key = { ...key, lastUseTime: later(lastUseTime, key.lastUseTime) };
  return { result: { $case: 'key', value: toKeyMessage(used, now) }, alreadyImported };
}

function later(one: Date, other: Date | undefined): Date {
  return other && other > one ? other : one;
}

function judgeLastUse(lastUseTime: Date, now: Date): ArgumentRefusal | undefined {
  if (lastUseTime <= now) return undefined;
  return refuseArgument('EXPIRATION_INVALID', 'last_use_time', 'last_use_time must not lie in the future');
}

/**
 * What makes two requests the same, of one item. What is compared is stored, so the digest takes part under a pepper
 * where there is one: the oldest, which stays the longest. Items at fault are alike, for none of them changes anything.
 */
function toComparable(item: Item | Refusal, peppers: Peppers): object {
  if (isRefusal(item)) return { refused: item.refused };
  const { sha256, secretField: _, ...fields } = item;
  const hex = toHex(sha256);
  const [, oldest] = digestsOf(hex, peppers);
  return { ...fields, digest: oldest?.hex ?? hex };
}

function parseItems(
  messages: readonly ImportKeysItem[],
  keyspace: Keyspace,
): readonly (Item | Refusal)[] | ArgumentRefusal {
  if (messages.length > ITEMS_MAX) {
    return refuseArgument('TOO_MANY_ITEMS', 'keys', `keys must be at most ${ITEMS_MAX}; send more in further calls`);
  }
  return messages.map((message) => {
    try {
      return parseItem(message, keyspace);
    } catch (error) {
      if (error instanceof Refused) return error.refusal;
      throw error;
    }
  });
}

/** @throws Refused, its field within the item */
function parseItem(message: ImportKeysItem, keyspace: Keyspace): Item {
  orRefuse(checkText(message));
  const { createTime, expireTime, lastUseTime } = message;
  return {
    ...parseSecret(message, keyspace),
    name: orRefuse(parseName(message.name)),
    type: message.type,
    scopes: orRefuse(parseScopes(message.scopes)),
    labels: Object.fromEntries(orRefuse(parseLabels(message.labels))),
    ...(createTime && { createTime: orRefuse(parseTimestamp(createTime, 'create_time')) }),
    ...(expireTime && { expireTime: orRefuse(parseTimestamp(expireTime, 'expire_time')) }),
    ...(lastUseTime && { lastUseTime: orRefuse(parseTimestamp(lastUseTime, 'last_use_time')) }),
    disabled: message.disabled,
  };
}

type ParsedSecret = Pick<Item, 'sha256' | 'clientId' | 'display' | 'secretField'>;

function parseSecret(message: ImportKeysItem, keyspace: Keyspace): ParsedSecret {
  switch (message.secret?.$case) {
    case undefined:
      throw invalid('digest', 'digest or credential is required');
    case 'digest':
      return parseDigest(message.secret.value, message, keyspace);
    case 'credential':
      return parseCredential(message.secret.value, message, keyspace);
  }
}

function parseDigest(sha256: Uint8Array, message: ImportKeysItem, keyspace: Keyspace): ParsedSecret {
  if (sha256.length !== DIGEST_BYTES) throw invalid('digest', `digest must be ${DIGEST_BYTES} bytes`);
  const isPair = keyspace.credential.kind === 'pair';
  const { clientId } = message;
  if (isPair && !CLIENT_ID.test(clientId)) throw invalid('client_id', `client_id ${CLIENT_ID_RULE}`);
  if (!isPair && clientId !== '') throw invalid('client_id', 'client_id must be empty in this keyspace');
  const display = orRefuse(
    parseText(message.display, { field: 'display', lengthMax: DISPLAY_LENGTH_MAX, refused: 'TEXT_INVALID' }),
  );
  // It is shown to whoever may read keys.
  const shown = takeOver(new Secret(display), keyspace);
  if (shown && Buffer.compare(shown.sha256, sha256) === 0) {
    throw new Refused(refuseArgument('TEXT_INVALID', 'display', 'display must not be the credential itself'));
  }
  return {
    sha256,
    ...(isPair && { clientId }),
    display: display === '' ? displayOfUnknown(keyspace.credential) : display,
    secretField: 'digest',
  };
}

function parseCredential({ kind }: Credential, message: ImportKeysItem, keyspace: Keyspace): ParsedSecret {
  const refuse = (rule: string) => invalid('credential', `credential ${rule}`);
  if (message.display !== '') {
    throw new Refused(refuseArgument('TEXT_INVALID', 'display', 'display is taken only with a digest'));
  }
  if (message.clientId !== '') throw invalid('client_id', 'client_id is taken only with a digest');
  const isPair = keyspace.credential.kind === 'pair';
  if (kind?.$case !== (isPair ? 'client' : 'bearerToken')) {
    throw refuse(`must be a ${isPair ? 'client' : 'bearer_token'} in this keyspace`);
  }
  const secret = kind.$case === 'client' ? kind.value.secret : kind.value;
  checkUntold(secret, message);
  const taken = takeOver(new Secret(secret), keyspace);
  if (!taken) throw refuse("must have the keyspace's form, or that of its legacy");
  if (kind.$case === 'bearerToken') return { ...taken, secretField: 'credential' };
  const { clientId } = kind.value;
  if (!CLIENT_ID.test(clientId)) throw refuse(`has a client_id that ${CLIENT_ID_RULE}`);
  return { ...taken, clientId, secretField: 'credential' };
}

/** What is kept of a key is shown to whoever may read keys, and goes to the audit. */
function checkUntold(secret: string, { name, scopes, labels }: ImportKeysItem): void {
  const texts: [field: string, text: string][] = [
    ['name', name],
    ...scopes.map((scope): [string, string] => ['scopes', scope]),
    ...[...labels].flat().map((text): [string, string] => ['labels', text]),
  ];
  const [field] = texts.find(([, text]) => secret !== '' && text.includes(secret)) ?? [];
  if (field === undefined) return;
  throw new Refused(refuseArgument('TEXT_INVALID', field, `${field} must not hold the credential`));
}

const CLIENT_ID_RULE = 'must be 1 to 128 printable ASCII characters without spaces in this keyspace';

function invalid(field: string, message: string): Refused {
  return new Refused(refuseArgument('DIGEST_INVALID', field, message));
}
