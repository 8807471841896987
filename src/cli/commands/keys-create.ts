import { randomUUID } from 'node:crypto';
import { Option, type Command } from 'commander';

import type { Credential } from '../../gen/keyreeve/v1/credential.js';
import type { Key } from '../../gen/keyreeve/v1/key.js';
import { type CreateKeyRequest, type CreateKeyResponse, KeyServiceService } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  type ActorOptions,
  actorOptions,
  anyText,
  type OrganizationOptions,
  organizationOptions,
  parsedOption,
  parseLabel,
  repeatedOption,
  toActor,
  toLabels,
  toOrganization,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, OutputFault } from '../faults.js';
import { describeKey } from '../output/key-text.js';
import { toCredentialJson, toKeyJson } from '../output/messages.js';
import { printableJson } from '../output/printable.js';
import { toFields } from '../output/table.js';
import { parseDurationMs, parseTime, toDuration } from '../output/times.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, remark, type Terminal } from '../terminal.js';

type Options = ConnectionOptions &
  OrganizationOptions &
  ActorOptions & {
    readonly name?: string;
    readonly type?: string;
    readonly expires?: ReturnType<typeof parseTime>;
    readonly ttl?: number;
    readonly scope?: readonly string[];
    readonly label?: readonly (readonly [string, string])[];
    readonly requestId?: string;
    readonly json?: boolean;
    readonly secretOnly?: boolean;
  };

export function addKeysCreate(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('create')
    .summary('issue a key and show its credential, once')
    .description('Issues a key and shows its credential. No other command shows it again.');
  for (const option of organizationOptions()) command.addOption(option);
  for (const option of actorOptions()) command.addOption(option);
  command
    .option('--name <name>', 'human name')
    .option('--type <type>', "one of the keyspace's types")
    .addOption(
      parsedOption('--expires <time>', 'when it ends, such as 2027-01-01T00:00:00Z', parseTime).conflicts('ttl'),
    )
    .addOption(parsedOption('--ttl <duration>', 'how long it lives, such as 30d', parseDurationMs))
    .addOption(repeatedOption('--scope <scope>', 'what the key may be used for', anyText))
    .addOption(repeatedOption('--label <key=value>', "the owner's own mark", parseLabel))
    .option('--request-id <id>', 'the id of an earlier try, to learn what became of it (default: a new one)')
    .addOption(new Option('--json', 'print the answer as JSON').conflicts('secretOnly'))
    .option('--secret-only', 'print the token, or in pair form the secret, and nothing else');
  addConnectionOptions(command).addHelpText(
    'after',
    example(
      'keyreeve keys create --keyspace hotmetal --organization acme --actor user:ada --name ci',
      '(umask 077; keyreeve keys create --keyspace hotmetal --organization acme --actor user:ada --secret-only > key.txt)',
    ),
  );
  command.action(async (options: Options) => createKey(options, terminal));
}

async function createKey(options: Options, terminal: Terminal): Promise<void> {
  const request = toRequest(options);
  using client = new ServiceClient(await toConnection(options, terminal));
  const answer = await client.call(KeyServiceService.createKey, request, request.requestId);
  if (!answer.key) throw new CommandFault(exitCodes.internal, 'the service answered no key');
  if (answer.replayed) await tellReplay(answer.key, answer, options, terminal);
  else await disclose(answer.key, answer, options, terminal);
}

function toRequest(options: Options): CreateKeyRequest {
  return {
    ...toOrganization(options),
    actor: toActor(options),
    requestId: options.requestId ?? randomUUID(),
    name: options.name ?? '',
    type: options.type ?? '',
    expiration: toExpiration(options),
    scopes: [...(options.scope ?? [])],
    labels: toLabels(options.label ?? []),
  };
}

function toExpiration({ expires, ttl }: Options): CreateKeyRequest['expiration'] {
  if (expires) return { $case: 'expireTime', value: expires };
  return ttl === undefined ? undefined : { $case: 'ttl', value: toDuration(ttl) };
}

function toOutput(key: Key, { credential, replayed }: CreateKeyResponse, { json, secretOnly }: Options): string {
  if (json) {
    const disclosed = credential ? toCredentialJson(credential) : null;
    return printableJson({ key: toKeyJson(key), credential: disclosed, replayed });
  }
  if (secretOnly) return secretOf(credential);
  return [
    `Created ${key.keyId} of ${organizationPath(key)}.`,
    '',
    describeKey(key),
    '',
    describeCredential(credential),
    '',
    'This is the only time that the credential is shown: Keyreeve keeps just a digest of it. Store it now.',
  ].join('\n');
}

async function disclose(key: Key, answer: CreateKeyResponse, options: Options, terminal: Terminal): Promise<void> {
  try {
    await print(terminal, toOutput(key, answer, options));
  } catch (error) {
    if (!(error instanceof OutputFault)) throw error;
    const message = `the key ${key.keyId} was created, but its credential could not be written; ${wayOut(key)}`;
    throw new CommandFault(exitCodes.internal, message, { cause: error });
  }
}

async function tellReplay(key: Key, answer: CreateKeyResponse, options: Options, terminal: Terminal): Promise<void> {
  const note = `an earlier try with this request id created ${key.keyId}, and its answer alone held the credential; if that is lost, ${wayOut(key)}`;
  if (options.secretOnly) throw new CommandFault(exitCodes.refused, note);
  await print(terminal, options.json ? toOutput(key, answer, options) : describeKey(key));
  remark(terminal, `keyreeve: ${note}`);
}

function wayOut(key: Key): string {
  return `revoke it and create another: keyreeve keys revoke --keyspace ${key.keyspace} --organization ${key.organizationId} --id ${key.keyId}`;
}

function secretOf(credential: Credential | undefined): string {
  switch (credential?.kind?.$case) {
    case 'bearerToken':
      return credential.kind.value;
    case 'client':
      return credential.kind.value.secret;
    case undefined:
      throw new CommandFault(exitCodes.internal, 'the service answered no credential');
  }
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
      throw new CommandFault(exitCodes.internal, 'the service answered no credential');
  }
}
