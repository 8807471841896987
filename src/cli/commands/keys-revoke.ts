import type { Command } from 'commander';

import { type Key, RevocationReason } from '../../gen/keyreeve/v1/key.js';
import { KeyServiceService, type RevokeKeyResponse } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  actorOptions,
  type ChangeOptions,
  oneOf,
  organizationOptions,
  parsedOption,
  requestIdOption,
  type SelectorOptions,
  selectorOptions,
  toChange,
  toSelector,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { describeEnforcement } from '../output/enforcement-text.js';
import { toEnforcementJson, toKeyJson } from '../output/messages.js';
import { printable, printableJson } from '../output/printable.js';
import { toShortTime } from '../output/times.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';

const REASONS = {
  unused: RevocationReason.UNUSED,
  compromised: RevocationReason.COMPROMISED,
  superseded: RevocationReason.SUPERSEDED,
  owner_departed: RevocationReason.OWNER_DEPARTED,
  other: RevocationReason.OTHER,
} as const;

const parseReason = oneOf(['unused', 'compromised', 'superseded', 'owner_departed', 'other']);

type Options = ConnectionOptions &
  ChangeOptions &
  SelectorOptions & {
    readonly reason?: keyof typeof REASONS;
    readonly detail?: string;
    readonly json?: boolean;
  };

export function addKeysRevoke(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('revoke')
    .summary('revoke a key, for good')
    .description('Revokes a key for good: nothing brings it back. Revoking it again changes nothing and succeeds.');
  for (const option of [...organizationOptions(), ...selectorOptions(), ...actorOptions()]) command.addOption(option);
  command
    .addOption(
      parsedOption('--reason <reason>', 'unused, compromised, superseded, owner_departed or other', parseReason),
    )
    .option('--detail <text>', 'more about why')
    .addOption(requestIdOption())
    .option('--json', 'print the answer as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example(
      'keyreeve keys revoke --keyspace metlo --organization acme --name ci --actor user:ada --reason compromised',
    ),
  );
  command.action(async (options: Options) => revokeKey(options, terminal));
}

async function revokeKey(options: Options, terminal: Terminal): Promise<void> {
  const request = {
    ...toChange(options),
    selector: toSelector(options),
    reason: options.reason ? REASONS[options.reason] : RevocationReason.UNSPECIFIED,
    reasonDetail: options.detail ?? '',
  };
  using client = new ServiceClient(await toConnection(options, terminal));
  const answer = await client.call(KeyServiceService.revokeKey, request, request.requestId);
  if (!answer.key?.revokeTime) throw new CommandFault(exitCodes.internal, 'the service answered no revoked key');
  await print(terminal, options.json ? toJson(answer.key, answer) : describe(answer.key, answer, new Date()));
}

function toJson(key: Key, { previousKey, enforcement }: RevokeKeyResponse): string {
  return printableJson({
    key: toKeyJson(key),
    previous_key: previousKey ? toKeyJson(previousKey) : null,
    enforcement: enforcement ? toEnforcementJson(enforcement) : null,
  });
}

function describe(key: Key, { previousKey, enforcement }: RevokeKeyResponse, now: Date): string {
  return [
    ...[key, ...(previousKey ? [previousKey] : [])].map(describeRevoked),
    ...(enforcement ? describeEnforcement(enforcement, { what: 'it', again: 'revoke it again' }, now) : []),
  ].join('\n');
}

function describeRevoked(key: Key): string {
  const time = key.revokeTime ? ` at ${toShortTime(key.revokeTime)}` : '';
  return `Revoked ${key.keyId} (${printable(key.name)}) of ${organizationPath(key)}${time}.`;
}
