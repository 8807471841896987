import { type Command, Option } from 'commander';

import { Key } from '../../gen/keyreeve/v1/key.js';
import { KeyServiceService, type UpdateKeyRequest, type UpdateKeyResponse } from '../../gen/keyreeve/v1/key_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  actorOptions,
  anyText,
  type ChangeOptions,
  organizationOptions,
  parsedOption,
  parseLabel,
  repeatedOption,
  requestIdOption,
  type SelectorOptions,
  selectorOptions,
  toChange,
  toLabels,
  toSelector,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, UsageFault } from '../faults.js';
import { describeEnforcement } from '../output/enforcement-text.js';
import { describeKey } from '../output/key-text.js';
import { toEnforcementJson, toKeyJson } from '../output/messages.js';
import { printableJson } from '../output/printable.js';
import { parseTime } from '../output/times.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';

interface FieldOptions {
  readonly newName?: string;
  readonly label?: readonly (readonly [string, string])[];
  readonly scope?: readonly string[];
  /** False with --no-labels. */
  readonly labels: boolean;
  /** False with --no-scopes. */
  readonly scopes: boolean;
  readonly expires?: ReturnType<typeof parseTime>;
  readonly neverExpires?: boolean;
  readonly disable?: boolean;
  readonly enable?: boolean;
}

type Options = ConnectionOptions &
  ChangeOptions &
  SelectorOptions &
  FieldOptions & {
    readonly etag?: string;
    readonly json?: boolean;
  };

export function addKeysUpdate(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('update')
    .summary("change a key's name, labels, scopes or end, or switch it off and on")
    .description(
      'Changes a key: at least one of its name, labels, scopes and end, or whether it is switched on. What no option ' +
        'names stays as it is. Labels and scopes are replaced whole: those that are given become all that the key has.',
    );
  for (const option of [...organizationOptions(), ...selectorOptions(), ...actorOptions()]) command.addOption(option);
  command
    .optionsGroup('Changes:')
    .option('--new-name <name>', 'rename it')
    .addOption(repeatedOption('--label <key=value>', 'replace all its labels by these', parseLabel))
    .addOption(new Option('--no-labels', 'take all its labels away').conflicts('label'))
    .addOption(repeatedOption('--scope <scope>', 'replace all its scopes by these', anyText))
    .addOption(new Option('--no-scopes', 'take all its scopes away').conflicts('scope'))
    .addOption(
      parsedOption('--expires <time>', 'when it ends, such as 2027-01-01T00:00:00Z', parseTime).conflicts(
        'neverExpires',
      ),
    )
    .option('--never-expires', 'it does not end by itself')
    .addOption(new Option('--disable', 'switch it off, until it is switched on again').conflicts('enable'))
    .option('--enable', 'switch it on again')
    .optionsGroup('Options:')
    .option('--etag <etag>', 'only if it still has this etag, which keys get --json shows')
    .addOption(requestIdOption())
    .option('--json', 'print the answer as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example(
      'keyreeve keys update --keyspace metlo --organization acme --name ci --actor user:ada --new-name build --label team=infra',
      'keyreeve keys update --keyspace metlo --organization acme --name ci --actor user:ada --disable',
    ),
  );
  command.action(async (options: Options) => updateKey(options, terminal));
}

async function updateKey(options: Options, terminal: Terminal): Promise<void> {
  const { updateMask, ...values } = toFields(options);
  const request: UpdateKeyRequest = {
    ...toChange(options),
    selector: toSelector(options),
    key: Key.create(values),
    updateMask,
    etag: options.etag ?? '',
  };
  using client = new ServiceClient(await toConnection(options, terminal));
  const answer = await client.call(KeyServiceService.updateKey, request, request.requestId);
  if (!answer.key) throw new CommandFault(exitCodes.internal, 'the service answered no key');
  const { key } = answer;
  await print(terminal, options.json ? toJson(key, answer) : describe(key, answer, updateMask, new Date()));
}

type KeyFields = Partial<Pick<Key, 'name' | 'labels' | 'scopes' | 'expireTime' | 'disabled'>> & {
  readonly updateMask: string[];
};

/** @throws UsageFault where no option changes anything */
function toFields(options: FieldOptions): KeyFields {
  const { newName, label, scope, expires, neverExpires, disable, enable } = options;
  const changes: readonly [field: string, isGiven: boolean, value: Partial<Key>][] = [
    ['name', newName !== undefined, { name: newName ?? '' }],
    ['labels', label !== undefined || !options.labels, { labels: toLabels(label ?? []) }],
    ['scopes', scope !== undefined || !options.scopes, { scopes: [...(scope ?? [])] }],
    ['expire_time', expires !== undefined || neverExpires === true, { expireTime: expires }],
    ['disabled', disable === true || enable === true, { disabled: disable === true }],
  ];
  const given = changes.filter(([, isGiven]) => isGiven);
  if (given.length === 0) {
    throw new UsageFault('say what to change: --new-name, --label, --scope, --expires, --disable, …; see --help');
  }
  const values = Object.assign({}, ...given.map(([, , value]) => value)) as Partial<Key>;
  return { ...values, updateMask: given.map(([field]) => field) };
}

function toJson(key: Key, { enforcement }: UpdateKeyResponse): string {
  return printableJson({
    key: toKeyJson(key),
    enforcement: enforcement ? toEnforcementJson(enforcement) : null,
  });
}

function describe(key: Key, { enforcement }: UpdateKeyResponse, updateMask: readonly string[], now: Date): string {
  const what = deniedBy(key, updateMask);
  return [
    `Updated ${key.keyId} of ${organizationPath(key)}: ${whatChanged(key, updateMask)}.`,
    '',
    describeKey(key),
    ...(enforcement && what ? ['', ...describeEnforcement(enforcement, { what, again: 'repeat it' }, now)] : []),
  ].join('\n');
}

const FIELDS: ReadonlyMap<string, string> = new Map([
  ['name', 'name'],
  ['labels', 'labels'],
  ['scopes', 'scopes'],
  ['expire_time', 'end'],
]);

// What was asked may have happened long ago, under the same request id: whether it is switched off, the key says.
function whatChanged({ disabled }: Key, updateMask: readonly string[]): string {
  const fields = updateMask.flatMap((field) => FIELDS.get(field) ?? []);
  const isSwitched = updateMask.includes('disabled') ? [`it is switched ${disabled ? 'off' : 'on'}`] : [];
  return [...(fields.length > 0 ? [fields.join(', ')] : []), ...isSwitched].join('; ');
}

/**
 * What no replica accepts any more, for certain: the answer does not tell which scopes and what end the key had before.
 * Undefined where the change can only have given.
 */
function deniedBy({ disabled, expireTime }: Key, updateMask: readonly string[]): string | undefined {
  if (disabled && updateMask.includes('disabled')) return 'it';
  const beyond = [
    ...(updateMask.includes('scopes') ? ['for a scope that it does not have'] : []),
    ...(expireTime && updateMask.includes('expire_time') ? ['after its end'] : []),
  ];
  return beyond.length > 0 ? `it ${beyond.join(', or ')}` : undefined;
}
