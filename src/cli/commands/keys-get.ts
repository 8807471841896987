import type { Command } from 'commander';

import { KeyServiceService } from '../../gen/keyreeve/v1/key_service.js';
import {
  type OrganizationOptions,
  organizationOptions,
  type SelectorOptions,
  selectorOptions,
  toOrganization,
  toSelector,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { describeKey } from '../output/key-text.js';
import { toKeyJson } from '../output/messages.js';
import { printableJson } from '../output/printable.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';

type Options = ConnectionOptions & OrganizationOptions & SelectorOptions & { readonly json?: boolean };

export function addKeysGet(keys: Command, terminal: Terminal): void {
  const command = keys.command('get').summary('show one key').description('Shows one key, also a revoked one.');
  for (const option of [...organizationOptions(), ...selectorOptions()]) command.addOption(option);
  command.option('--json', 'print the key as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example('keyreeve keys get --keyspace metlo --organization acme --name ci'),
  );
  command.action(async (options: Options) => getKey(options, terminal));
}

async function getKey(options: Options, terminal: Terminal): Promise<void> {
  const request = { ...toOrganization(options), selector: toSelector(options) };
  using client = new ServiceClient(await toConnection(options, terminal));
  const { key } = await client.call(KeyServiceService.getKey, request);
  if (!key) throw new CommandFault(exitCodes.internal, 'the service answered no key');
  await print(terminal, options.json ? printableJson(toKeyJson(key)) : describeKey(key));
}
