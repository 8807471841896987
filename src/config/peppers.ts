/** `KEYREEVE_PEPPERS`: `version:base64`, or `version:base64:standby`, one or two with a comma between. */
import { createSecretKey, randomBytes } from 'node:crypto';

import type { Pepper, Peppers } from '../keys/pepper.js';
import { Secret } from '../keys/secret.js';

export const PEPPER_VERSION_MAX = 2 ** 31 - 1;
const PEPPERS_MAX = 2;
const BYTES_MIN = 32;

export interface ParsedPeppers {
  readonly peppers: Peppers;
  /** What was expected instead, each time that something is wrong: none of it repeats a value. */
  readonly expected: readonly string[];
}

export function parsePeppers(text: string): ParsedPeppers {
  const entries = text.split(',').map((entry, at) => parseEntry(entry.trim(), at + 1));
  const peppers = entries.flatMap(({ pepper }) => (pepper ? [pepper] : []));
  return { peppers, expected: [...entries.flatMap(({ expected }) => expected), ...judgeTogether(entries)] };
}

/** @returns undefined for what is no version */
export function parsePepperVersion(text: string): number | undefined {
  return /^[1-9]\d{0,9}$/.test(text) && Number(text) <= PEPPER_VERSION_MAX ? Number(text) : undefined;
}

/** @returns an entry with a pepper that nobody else has */
export function newPepperEntry(version: number): Secret {
  return new Secret(`${version}:${randomBytes(BYTES_MIN).toString('base64')}`);
}

/** What an entry says, as far as it can be read. */
interface Entry {
  readonly expected: readonly string[];
  readonly version?: number;
  readonly isStandby: boolean;
  readonly pepper?: Pepper;
}

function parseEntry(entry: string, at: number): Entry {
  const [version = '', base64 = '', standby, ...more] = entry.split(':');
  const isStandby = standby === 'standby';
  if (base64 === '' || more.length > 0 || (standby !== undefined && !isStandby)) {
    return { expected: [`version:base64 or version:base64:standby as entry ${at}`], isStandby };
  }
  const versionNumber = parsePepperVersion(version);
  const bytes = Buffer.from(base64, 'base64');
  // Node skips what is no base64, and would make a weaker pepper of a mistyped one.
  const isSound = bytes.toString('base64') === base64 && bytes.length >= BYTES_MIN;
  return {
    expected: [
      ...(versionNumber === undefined ? [`a version from 1 to ${PEPPER_VERSION_MAX} in entry ${at}`] : []),
      ...(isSound ? [] : [`base64 of ${BYTES_MIN} random bytes or more in entry ${at}`]),
    ],
    ...(versionNumber !== undefined && { version: versionNumber }),
    isStandby,
    ...(versionNumber !== undefined &&
      isSound && { pepper: { version: versionNumber, key: createSecretKey(bytes), isStandby } }),
  };
}

function judgeTogether(entries: readonly Entry[]): string[] {
  const [first, second] = entries;
  return [
    ...(entries.length > PEPPERS_MAX ? [`${PEPPERS_MAX} entries at most`] : []),
    ...(entries.some(({ version = Infinity }, at) => version <= (entries[at - 1]?.version ?? 0))
      ? ['versions that rise from entry to entry']
      : []),
    // Nothing is ever stored under a version below the one in use.
    ...(entries.slice(0, -1).some(({ isStandby }) => isStandby) ? ['standby in the last entry alone'] : []),
    ...(first?.pepper && second?.pepper?.key.equals(first.pepper.key) ? ['another pepper in each entry'] : []),
  ];
}
