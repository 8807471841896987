/** What a credential is found by: a digest of the whole token, or in pair form of the secret. */
export interface Digest {
  readonly algorithm: 'sha256' | 'hmac-sha256';
  /** The pepper of an HMAC, from 1; 0 for a bare digest. */
  readonly pepperVersion: number;
  /** 32 bytes. */
  readonly bytes: Uint8Array;
}

/**
 * A digest to look for. Memory knows it by its text: its bytes are made for a store alone, whenever they are asked for, so
 * that a copy by its fields lacks them.
 */
export class SoughtDigest implements Digest {
  readonly algorithm: Digest['algorithm'];
  readonly pepperVersion: number;
  /** 64 lowercase hexadecimal digits. */
  readonly hex: string;

  constructor(algorithm: Digest['algorithm'], pepperVersion: number, hex: string) {
    this.algorithm = algorithm;
    this.pepperVersion = pepperVersion;
    this.hex = hex;
  }

  get bytes(): Uint8Array {
    return Buffer.from(this.hex, 'hex');
  }
}

/** Two lowercase hexadecimal digits for each byte. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** A digest's place: 64 lowercase hexadecimal digits, in a keyspace. */
export type DigestPlace = string;

export function digestPlaceOf(keyspace: string, hex: string): DigestPlace {
  return `${keyspace}/${hex}`;
}
