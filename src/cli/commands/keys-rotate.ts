import type { Command } from 'commander';

import { type Key, KeyState } from '../../gen/keyreeve/v1/key.js';
import { KeyServiceService, type RotateKeyRequest, type RotateKeyResponse } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  actorOptions,
  type ChangeOptions,
  type ExpirationOptions,
  expirationOptions,
  organizationOptions,
  parsedOption,
  type SelectorOptions,
  selectorOptions,
  toChange,
  toExpiration,
  toSelector,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { describeEnforcement } from '../output/enforcement-text.js';
import { toCredentialJson, toEnforcementJson, toKeyJson } from '../output/messages.js';
import { printable } from '../output/printable.js';
import { parseDurationOrZeroMs, toDuration, toShortTime } from '../output/times.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { remark, type Terminal } from '../terminal.js';
import { addDisclosureOptions, disclose, type DisclosureOptions, type Shown } from './disclose.js';

type Options = ConnectionOptions &
  ChangeOptions &
  SelectorOptions &
  ExpirationOptions &
  DisclosureOptions & {
    /** Milliseconds. */
    readonly overlap?: number;
  };

export function addKeysRotate(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('rotate')
    .summary('issue a successor to a key, with a credential of its own')
    .description(
      'Issues a successor to a key and shows its credential, once. The successor takes over name, type, scopes, labels ' +
        'and end. The old key goes on working for the overlap, or without one until it is revoked or expires, or for as long as the keyspace allows; with ' +
        '--overlap 0 it is revoked at once. Only one old key of a line goes on working: rotating again ends the older.',
    );
  for (const option of [...organizationOptions(), ...selectorOptions(), ...actorOptions()]) command.addOption(option);
  command.addOption(
    parsedOption(
      '--overlap <duration>',
      'how long the old key still works, such as 7d; 0 revokes it at once (default: until it is revoked, or as long as the keyspace allows)',
      parseDurationOrZeroMs,
    ),
  );
  for (const option of expirationOptions('the new key')) command.addOption(option);
  addDisclosureOptions(command, 'the new token, or in pair form the secret');
  addConnectionOptions(command).addHelpText(
    'after',
    example(
      'keyreeve keys rotate --keyspace hookdeploy --organization acme --actor user:ada --permission api_keys.manage --name ci --overlap 7d',
      '(umask 077; keyreeve keys rotate --keyspace hotmetal --organization acme --actor user:ada --id key_01… --overlap 0 --secret-only > key.txt)',
    ),
  );
  command.action(async (options: Options) => rotateKey(options, terminal));
}

async function rotateKey(options: Options, terminal: Terminal): Promise<void> {
  const request = toRequest(options);
  using client = new ServiceClient(await toConnection(options, terminal));
  const answer = await client.call(KeyServiceService.rotateKey, request, request.requestId);
  const { key, previousKey, credential, replayed } = answer;
  if (!key || !previousKey) throw new CommandFault(exitCodes.internal, 'the service answered no key and its old one');
  const aftermath = describeAftermath(previousKey, answer, new Date());
  const shown: Shown = {
    deed: 'issued',
    json: toJson(key, previousKey, answer),
    headline: `Rotated ${previousKey.keyId} of ${organizationPath(key)} to ${key.keyId}.`,
    aftermath,
  };
  await disclose({ key, previousKey, credential, replayed }, shown, options, terminal);
  if (options.secretOnly && answer.enforcement?.complete === false) remark(terminal, aftermath.join('\n'));
}

function toRequest(options: Options): RotateKeyRequest {
  return {
    ...toChange(options),
    selector: toSelector(options),
    overlap: options.overlap === undefined ? undefined : toDuration(options.overlap),
    expiration: toExpiration(options),
  };
}

function toJson(key: Key, previousKey: Key, { credential, enforcement, replayed }: RotateKeyResponse): object {
  return {
    key: toKeyJson(key),
    credential: credential ? toCredentialJson(credential) : null,
    previous_key: toKeyJson(previousKey),
    enforcement: enforcement ? toEnforcementJson(enforcement) : null,
    replayed,
  };
}

/** What became of the old key. */
function describeAftermath(previousKey: Key, { enforcement }: RotateKeyResponse, now: Date): string[] {
  const lines = [`The old key ${previousKey.keyId} (${printable(previousKey.name)}) ${endOf(previousKey)}.`];
  // Of a line only one old key goes on working: rotating again ends the one before.
  const ended = [
    ...(previousKey.state === KeyState.REVOKED ? [previousKey.keyId] : []),
    ...(previousKey.rotatedFrom === '' ? [] : [previousKey.rotatedFrom]),
  ];
  if (!enforcement || ended.length === 0) return lines;
  const takenAway = { what: ended.join(' or '), again: `revoke ${ended.join(' and ')}` };
  return [...lines, ...describeEnforcement(enforcement, takenAway, now)];
}

function endOf({ state, revokeTime, expireTime }: Key): string {
  if (state === KeyState.REVOKED) return `is revoked${revokeTime ? ` since ${toShortTime(revokeTime)}` : ''}`;
  if (state === KeyState.EXPIRED) return `is expired${expireTime ? ` since ${toShortTime(expireTime)}` : ''}`;
  const works = state === KeyState.DISABLED ? 'is disabled, and could be used' : 'works';
  return `${works} until ${expireTime ? toShortTime(expireTime) : 'it is revoked'}`;
}
