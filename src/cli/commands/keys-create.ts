import { randomUUID } from 'node:crypto';
import { Option, type Command } from 'commander';

import type { Credential } from '../../gen/keyreeve/v1/credential.js';
import type { Key } from '../../gen/keyreeve/v1/key.js';
import { type CreateKeyRequest, KeyServiceService } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  type ActorOptions,
  actorOptions,
  anyText,
  type ExpirationOptions,
  expirationOptions,
  type OrganizationOptions,
  organizationOptions,
  parseLabel,
  repeatedOption,
  toActor,
  toExpiration,
  toLabels,
  toOrganization,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { describeKey } from '../output/key-text.js';
import { toCredentialJson, toKeyJson } from '../output/messages.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import type { Terminal } from '../terminal.js';
import { describeCredential, disclose, type DisclosureOptions, type Shown, SHOWN_ONCE } from './disclose.js';

type Options = ConnectionOptions &
  OrganizationOptions &
  ActorOptions &
  ExpirationOptions &
  DisclosureOptions & {
    readonly name?: string;
    readonly type?: string;
    readonly scope?: readonly string[];
    readonly label?: readonly (readonly [string, string])[];
    readonly requestId?: string;
  };

export function addKeysCreate(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('create')
    .summary('issue a key and show its credential, once')
    .description('Issues a key and shows its credential. No other command shows it again.');
  for (const option of organizationOptions()) command.addOption(option);
  for (const option of actorOptions()) command.addOption(option);
  command.option('--name <name>', 'human name').option('--type <type>', "one of the keyspace's types");
  for (const option of expirationOptions('it')) command.addOption(option);
  command
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
  const { key, credential, replayed } = await client.call(KeyServiceService.createKey, request, request.requestId);
  if (!key) throw new CommandFault(exitCodes.internal, 'the service answered no key');
  const shown: Shown = {
    deed: 'created',
    json: { key: toKeyJson(key), credential: credential ? toCredentialJson(credential) : null, replayed },
    text: () => describeCreated(key, credential),
    replayedText: describeKey(key),
  };
  await disclose({ key, credential, replayed }, shown, options, terminal);
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

function describeCreated(key: Key, credential: Credential | undefined): string {
  return [
    `Created ${key.keyId} of ${organizationPath(key)}.`,
    '',
    describeKey(key),
    '',
    describeCredential(credential),
    '',
    SHOWN_ONCE,
  ].join('\n');
}
