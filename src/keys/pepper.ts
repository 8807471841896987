/**
 * Peppers: secrets of the service, kept apart from the store, without which a stolen store does not even show whether a
 * guessed credential was right. A record keeps SHA-256 of the credential, or HMAC-SHA-256 of that under a pepper; so
 * whoever knows the SHA-256 alone, as an import does, can tell every form that it may be stored in.
 *
 * Versions only rise: a record moves from a lower one to the one in use when it verifies. Who looks for it looks in
 * ascending order, and cannot miss one that moves meanwhile. A replica that does not know a version yet must never meet
 * it, so a new pepper is first made known to all replicas (`standby`), then put to use.
 */
import { createHmac, type KeyObject } from 'node:crypto';

import { type Digest, SoughtDigest, toHex } from './digest.js';

export interface Pepper {
  /** From 1. */
  readonly version: number;
  /** 32 bytes or more. Its implicit text holds nothing of them. */
  readonly key: KeyObject;
  /** Known and looked for, but nothing is stored under it yet. */
  readonly isStandby: boolean;
}

/** By version, ascending; two at most. Empty: digests are bare. */
export type Peppers = readonly Pepper[];

/**
 * The forms that a digest may be stored in, in the order in which to look for them.
 * @param sha256 64 lowercase hexadecimal digits
 */
export function digestsOf(sha256: string, peppers: Peppers): readonly SoughtDigest[] {
  const bare = new SoughtDigest('sha256', 0, sha256);
  // It runs on every verification.
  if (peppers.length === 0) return [bare];
  const { bytes } = bare;
  return [
    bare,
    ...peppers.map((pepper) => new SoughtDigest('hmac-sha256', pepper.version, toHex(peppered(bytes, pepper)))),
  ];
}

/** The form that a digest is stored in now. */
export function digestToStore(sha256: Uint8Array, peppers: Peppers): Digest {
  const pepper = pepperInUse(peppers);
  if (!pepper) return { algorithm: 'sha256', pepperVersion: 0, bytes: sha256 };
  return { algorithm: 'hmac-sha256', pepperVersion: pepper.version, bytes: peppered(sha256, pepper) };
}

/** The version that a digest is stored under now; 0: bare. */
export function versionInUse(peppers: Peppers): number {
  return pepperInUse(peppers)?.version ?? 0;
}

/** Tells a pepper from another under the same version, and nothing of the pepper: 64 lowercase hex digits. */
export function fingerprintOf({ key }: Pepper): string {
  return createHmac('sha256', key).update('keyreeve: the fingerprint of a pepper').digest('hex');
}

/**
 * Whether it stands under the version of another one.
 * @param known the fingerprints remembered, by version
 */
export function isAnother(pepper: Pepper, known: ReadonlyMap<number, string>): boolean {
  const fingerprint = known.get(pepper.version);
  return fingerprint !== undefined && fingerprint !== fingerprintOf(pepper);
}

/**
 * Where the peppers configured contradict what is stored, a line each; empty where they do not. Without a pepper under
 * which keys are stored, or with another in its place, those keys would pass for unknown.
 * @param known the fingerprints remembered, by version
 * @param stored the versions that unrevoked keys are stored under; 0: bare
 */
export function pepperContradictions(
  peppers: Peppers,
  known: ReadonlyMap<number, string>,
  stored: ReadonlySet<number>,
): readonly string[] {
  const others = peppers.filter((pepper) => isAnother(pepper, known));
  const missing = [...stored].filter((version) => version > 0 && !peppers.some((pepper) => pepper.version === version));
  return [
    ...others.map(
      ({ version }) =>
        `KEYREEVE_PEPPERS: version ${version} is another pepper than the one known by that version; ` +
        'restore it, or give the new one a version never used before',
    ),
    ...missing.map(
      (version) =>
        `KEYREEVE_PEPPERS: version ${version} is missing, and unrevoked keys are stored under it and would be denied; ` +
        'add it again until keyreeve peppers says that it can go',
    ),
  ];
}

function pepperInUse(peppers: Peppers): Pepper | undefined {
  return peppers.findLast(({ isStandby }) => !isStandby);
}

function peppered(sha256: Uint8Array, { key }: Pepper): Uint8Array {
  return createHmac('sha256', key).update(sha256).digest();
}
