import type { Command } from 'commander';

import { type Key, KeyState } from '../../gen/keyreeve/v1/key.js';
import { KeyServiceService, type ListKeysRequest } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  anyText,
  oneOf,
  type OrganizationOptions,
  organizationOptions,
  parseCount,
  parsedOption,
  repeatedOption,
  toOrganization,
} from '../arguments.js';
import { example } from '../command.js';
import { listKeys } from '../output/key-text.js';
import { toKeyJson } from '../output/messages.js';
import { printableJson } from '../output/printable.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { collectPages } from '../service/pages.js';
import { print, type Terminal } from '../terminal.js';

const STATES = {
  active: [KeyState.ACTIVE],
  disabled: [KeyState.DISABLED],
  expired: [KeyState.EXPIRED],
  revoked: [KeyState.REVOKED],
  all: [KeyState.ACTIVE, KeyState.DISABLED, KeyState.EXPIRED, KeyState.REVOKED],
} as const;

const parseState = oneOf(['active', 'disabled', 'expired', 'revoked', 'all']);

type Options = ConnectionOptions &
  OrganizationOptions & {
    readonly type?: readonly string[];
    readonly state?: readonly (keyof typeof STATES)[];
    readonly limit?: number;
    readonly json?: boolean;
  };

export function addKeysList(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('list')
    .summary("list an organization's keys")
    .description("Lists an organization's keys, newest first.");
  for (const option of organizationOptions()) command.addOption(option);
  command
    .addOption(repeatedOption('--type <type>', 'only keys of this type', anyText))
    .addOption(
      repeatedOption(
        '--state <state>',
        'active, disabled, expired, revoked or all; otherwise all but revoked',
        parseState,
      ),
    )
    .addOption(parsedOption('--limit <count>', 'at most so many (default: all)', parseCount))
    .option('--json', 'print an array of keys as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example('keyreeve keys list --keyspace metlo --organization acme --state active --type GCP'),
  );
  command.action(async (options: Options) => list(options, terminal));
}

async function list(options: Options, terminal: Terminal): Promise<void> {
  const filter = {
    ...toOrganization(options),
    types: [...(options.type ?? [])],
    states: [...new Set((options.state ?? []).flatMap((state) => STATES[state]))],
  };
  using client = new ServiceClient(await toConnection(options, terminal));
  const keys = await collectPages(options.limit, async (page): Promise<{ items: Key[]; nextPageToken: string }> => {
    const request: ListKeysRequest = { ...filter, ...page };
    const { keys: items, nextPageToken } = await client.call(KeyServiceService.listKeys, request);
    return { items, nextPageToken };
  });
  const described = keys.length > 0 ? listKeys(keys) : `No keys of ${organizationPath(filter)} to show.`;
  await print(terminal, options.json ? printableJson(keys.map(toKeyJson)) : described);
}
