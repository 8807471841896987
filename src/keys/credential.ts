/**
 * Credentials: making, recognising, digesting and showing them. No store is read here: text that is not recognised was
 * never issued, so no look-up is owed to it.
 */
import { hash, timingSafeEqual } from 'node:crypto';

import { type RandomBytes, randomBase62 } from './base62.js';
import { CHECKSUM_LENGTH, checksumOf, endsInChecksum } from './checksum.js';
import type { Digest, SoughtDigest } from './digest.js';
import { newClientId } from './ids.js';
import type { Key } from './key.js';
import type { CredentialForm, Keyspace } from './keyspace.js';
import { digestsOf, digestToStore, type Peppers } from './pepper.js';
import { Secret } from './secret.js';

/** Enough for every form and for legacy tokens; longer text is noise. */
export const TOKEN_BYTES_MAX = 512;

const SHOWN_LENGTH = 4;

/** So that someone who sees the display still misses 128 random bits; checksum and shown characters tell them nothing. */
export const BODY_LENGTH_MIN = CHECKSUM_LENGTH + SHOWN_LENGTH + Math.ceil(128 / Math.log2(62));

/** A credential just made: what the client gets once, and what the record keeps of it. */
export interface NewCredential {
  /** The bearer token, or in pair form the secret. */
  readonly secret: Secret;
  /** In pair form alone. */
  readonly clientId?: string;
  readonly digest: Digest;
  readonly display: string;
}

/** A credential as a verification presents it. */
export type PresentedCredential =
  | { readonly kind: 'none' }
  | { readonly kind: 'bearer'; readonly token: Secret }
  | { readonly kind: 'pair'; readonly clientId: string; readonly secret: Secret };

/** Where to look for a credential that was recognised. */
export interface LookUp {
  readonly keyspace: Keyspace;
  /** The forms that the digest may be stored in, in the order in which to look: see `pepper.ts`. */
  readonly digests: readonly SoughtDigest[];
  /** In pair form: the key found must have it. */
  readonly clientId?: string;
}

export function newCredential(form: CredentialForm, peppers: Peppers, random: RandomBytes): NewCredential {
  const token = newToken(form, random);
  return {
    secret: new Secret(token),
    ...(form.kind === 'pair' && { clientId: newClientId() }),
    digest: digestToStore(sha256(token), peppers),
    display: displayOf(form, token),
  };
}

/**
 * Where a credential could be found.
 * @param keyspaces the one that was named, or all that the caller may verify
 * @param named whether the caller named the keyspace: only then a token without prefix can be told
 * @returns `malformed`: it fits no form there; an empty list: nothing can be found by it, and its form is not told apart
 *   from a wrong value, so that no half of a pair can be guessed alone
 */
export function recognise(
  credential: PresentedCredential,
  keyspaces: readonly Keyspace[],
  named: boolean,
  peppers: Peppers,
): readonly LookUp[] | 'malformed' {
  switch (credential.kind) {
    case 'none':
      return 'malformed';
    case 'pair':
      return recognisePair(credential, keyspaces, peppers);
    case 'bearer':
      return recogniseToken(credential.token.reveal(), keyspaces, named, peppers);
  }
}

/** Whether a key found by its digest is the one presented: in pair form the client id must fit too. */
export function matches(key: Pick<Key, 'clientId'>, { clientId }: LookUp): boolean {
  if (clientId === undefined) return key.clientId === undefined;
  if (key.clientId === undefined) return false;
  const stored = Buffer.from(key.clientId);
  const presented = Buffer.from(clientId);
  return stored.length === presented.length && timingSafeEqual(stored, presented);
}

function recognisePair(
  { clientId, secret }: Extract<PresentedCredential, { kind: 'pair' }>,
  keyspaces: readonly Keyspace[],
  peppers: Peppers,
): readonly LookUp[] | 'malformed' {
  const pairs = keyspaces.filter((keyspace) => keyspace.credential.kind === 'pair');
  if (pairs.length === 0) return 'malformed';
  const text = secret.reveal();
  if (Buffer.byteLength(text) > TOKEN_BYTES_MAX) return [];
  // Imported client ids may look like anything: they are compared with the one stored, and not judged by their form.
  const told = pairs.filter(({ credential, legacy }) => isToken(credential, text) || legacy?.pattern.test(text));
  return told.map((keyspace) => ({ keyspace, digests: digestsOf(sha256Hex(text), peppers), clientId }));
}

function recogniseToken(
  token: string,
  keyspaces: readonly Keyspace[],
  named: boolean,
  peppers: Peppers,
): readonly LookUp[] | 'malformed' {
  if (Buffer.byteLength(token) > TOKEN_BYTES_MAX) return 'malformed';
  const lookUps: LookUp[] = [];
  let digests: LookUp['digests'] | undefined;
  for (const keyspace of keyspaces) {
    const { credential, legacy } = keyspace;
    if (credential.kind !== 'bearer') continue;
    const told = named || credential.prefix !== '';
    if (!(told && isToken(credential, token)) && legacy?.pattern.test(token) !== true) continue;
    digests ??= digestsOf(sha256Hex(token), peppers);
    lookUps.push({ keyspace, digests });
  }
  return lookUps.length === 0 ? 'malformed' : lookUps;
}

/**
 * A credential that was issued elsewhere, as a key of this keyspace would keep it; undefined where it fits neither the
 * keyspace's form nor its `legacy`, and so would never be recognised.
 */
export function takeOver(
  secret: Secret,
  { credential, legacy }: Pick<Keyspace, 'credential' | 'legacy'>,
): { readonly sha256: Uint8Array; readonly display: string } | undefined {
  const token = secret.reveal();
  if (Buffer.byteLength(token) > TOKEN_BYTES_MAX) return undefined;
  if (!isToken(credential, token) && legacy?.pattern.test(token) !== true) return undefined;
  // A prefix that the token does not have would make it show more of itself, or what it is not.
  const prefix = token.startsWith(credential.prefix) ? credential.prefix : '';
  return { sha256: sha256(token), display: displayOf({ ...credential, prefix }, token) };
}

/** What is shown of an imported credential of which the digest alone is known, and nobody said more. */
export function displayOfUnknown({ prefix, display }: CredentialForm): string {
  return display === 'first_four' ? `${prefix}...` : `${prefix}****`;
}

function newToken({ prefix, bodyLength }: CredentialForm, random: RandomBytes): string {
  const text = prefix + randomBase62(bodyLength - CHECKSUM_LENGTH, random);
  return text + checksumOf(text);
}

function isToken({ prefix, bodyLength }: CredentialForm, token: string): boolean {
  if (token.length !== prefix.length + bodyLength || !token.startsWith(prefix)) return false;
  return endsInChecksum(token, prefix.length);
}

/** A random secret of 128 bits or more cannot be searched for: a slow hash would only slow verification down. */
function sha256(token: string): Buffer {
  return hash('sha256', token, 'buffer');
}

/** As text: memory of its own for each digest takes twice as long. */
function sha256Hex(token: string): string {
  return hash('sha256', token, 'hex');
}

function displayOf({ prefix, display }: CredentialForm, token: string): string {
  switch (display) {
    case 'first_four':
      return `${token.slice(0, prefix.length + SHOWN_LENGTH)}...`;
    case 'last_four':
      return `${prefix}****${token.slice(-SHOWN_LENGTH)}`;
  }
}
