/** Showing a credential that no other call discloses, and what to do where it got lost. */
import { type Command, Option } from 'commander';

import type { Credential } from '../../gen/keyreeve/v1/credential.js';
import { type Key, KeyState } from '../../gen/keyreeve/v1/key.js';
import { requestIdOption } from '../arguments.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, OutputFault } from '../faults.js';
import { describeKey } from '../output/key-text.js';
import { printableJson } from '../output/printable.js';
import { toFields } from '../output/table.js';
import { print, remark, type Terminal } from '../terminal.js';

/** What a call answers that issues a key. */
export interface Issued {
  readonly key: Key;
  readonly credential: Credential | undefined;
  /** A rotation's old key. */
  readonly previousKey?: Key;
  /** An earlier call under the same request id had issued the key, and had the credential. */
  readonly replayed: boolean;
}

/** How a command shows it. */
export interface Shown {
  /** What was done, as in "the key … was created". */
  readonly deed: string;
  readonly json: object;
  /** The first line of a first answer. */
  readonly headline: string;
  /** What follows the key, and in a first answer its credential. */
  readonly aftermath?: readonly string[];
}

export interface DisclosureOptions {
  readonly json?: boolean;
  readonly secretOnly?: boolean;
}

export function addDisclosureOptions(command: Command, secret: string): void {
  command
    .addOption(requestIdOption('to learn what became of it'))
    .addOption(new Option('--json', 'print the answer as JSON').conflicts('secretOnly'))
    .option('--secret-only', `print ${secret}, and nothing else`);
}

/** @throws CommandFault where there is no credential to show, or it could not be written, with the way out */
export async function disclose(
  issued: Issued,
  shown: Shown,
  options: DisclosureOptions,
  terminal: Terminal,
): Promise<void> {
  if (issued.replayed) await tellReplay(issued, shown, options, terminal);
  else await showOnce(issued, shown, options, terminal);
}

function describeCredential(credential: Credential | undefined): string {
  switch (credential?.kind?.$case) {
    case 'bearerToken':
      return toFields([['credential', credential.kind.value]]);
    case 'client':
      return toFields([
        ['client id', credential.kind.value.clientId],
        ['secret', credential.kind.value.secret],
      ]);
    case undefined:
      throw noCredential();
  }
}

const SHOWN_ONCE =
  'This is the only time that the credential is shown: Keyreeve keeps just a digest of it. Store it now.';

async function showOnce(
  issued: Issued,
  shown: Shown,
  { json, secretOnly }: DisclosureOptions,
  terminal: Terminal,
): Promise<void> {
  try {
    if (json) await print(terminal, printableJson(shown.json));
    else await print(terminal, secretOnly ? secretOf(issued.credential) : describe(issued, shown));
  } catch (error) {
    if (!(error instanceof OutputFault)) throw error;
    const message = `the key ${issued.key.keyId} was ${shown.deed}, but its credential could not be written; ${wayOut(issued)}`;
    throw new CommandFault(exitCodes.internal, message, { cause: error });
  }
}

async function tellReplay(
  issued: Issued,
  shown: Shown,
  { json, secretOnly }: DisclosureOptions,
  terminal: Terminal,
): Promise<void> {
  const note = `an earlier try with this request id answered that ${issued.key.keyId} was ${shown.deed}, and that answer alone held the credential; if it is lost, ${wayOut(issued)}`;
  if (secretOnly) throw new CommandFault(exitCodes.refused, note);
  await print(terminal, json ? printableJson(shown.json) : describe(issued, shown));
  remark(terminal, `keyreeve: ${note}`);
}

function describe({ key, credential, replayed }: Issued, { headline, aftermath }: Shown): string {
  return [
    ...(replayed ? [] : [headline, '']),
    describeKey(key),
    ...(replayed ? [] : ['', describeCredential(credential), '', SHOWN_ONCE]),
    ...(aftermath ? ['', ...aftermath] : []),
  ].join('\n');
}

/** How to come by a credential, the one that was disclosed being lost. */
function wayOut({ key, previousKey }: Issued): string {
  if (key.supersededBy !== '') {
    return `rotate ${key.supersededBy}, which has taken its place since`;
  }
  if (key.state === KeyState.REVOKED || key.state === KeyState.EXPIRED) {
    return 'create another key: this one has ended since';
  }
  const also =
    previousKey && (previousKey.state === KeyState.ACTIVE || previousKey.state === KeyState.DISABLED)
      ? `, which also ends ${previousKey.keyId} at once`
      : '';
  return `rotate it with overlap 0${also}: keyreeve keys rotate --keyspace ${key.keyspace} --organization ${key.organizationId} --id ${key.keyId} --overlap 0`;
}

function secretOf(credential: Credential | undefined): string {
  switch (credential?.kind?.$case) {
    case 'bearerToken':
      return credential.kind.value;
    case 'client':
      return credential.kind.value.secret;
    case undefined:
      throw noCredential();
  }
}

function noCredential(): CommandFault {
  return new CommandFault(exitCodes.internal, 'the service answered no credential');
}
