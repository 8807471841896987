import type { Command } from 'commander';

import { type CreateKeyRequest, KeyServiceService } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  actorOptions,
  anyText,
  type ChangeOptions,
  type ExpirationOptions,
  expirationOptions,
  organizationOptions,
  parseLabel,
  repeatedOption,
  toChange,
  toExpiration,
  toLabels,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { toCredentialJson, toKeyJson } from '../output/messages.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import type { Terminal } from '../terminal.js';
import { addDisclosureOptions, disclose, type DisclosureOptions, type Shown } from './disclose.js';

type Options = ConnectionOptions &
  ChangeOptions &
  ExpirationOptions &
  DisclosureOptions & {
    readonly name?: string;
    readonly type?: string;
    readonly scope?: readonly string[];
    readonly label?: readonly (readonly [string, string])[];
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
    .addOption(repeatedOption('--label <key=value>', "the owner's own mark", parseLabel));
  addDisclosureOptions(command, 'the token, or in pair form the secret');
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
    headline: `Created ${key.keyId} of ${organizationPath(key)}.`,
  };
  await disclose({ key, credential, replayed }, shown, options, terminal);
}

function toRequest(options: Options): CreateKeyRequest {
  return {
    ...toChange(options),
    name: options.name ?? '',
    type: options.type ?? '',
    expiration: toExpiration(options),
    scopes: [...(options.scope ?? [])],
    labels: toLabels(options.label ?? []),
  };
}
