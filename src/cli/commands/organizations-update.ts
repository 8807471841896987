import { type Command, Option } from 'commander';

import { Organization } from '../../gen/keyreeve/v1/organization.js';
import {
  OrganizationServiceService,
  type UpdateOrganizationRequest,
  type UpdateOrganizationResponse,
} from '../../gen/keyreeve/v1/organization_service.js';
import { organizationPath } from '../../keys/organization.js';
import { actorOptions, type ChangeOptions, organizationOptions, requestIdOption, toChange } from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, UsageFault } from '../faults.js';
import { describeEnforcement } from '../output/enforcement-text.js';
import { toEnforcementJson, toOrganizationJson } from '../output/messages.js';
import { describeOrganization } from '../output/organization-text.js';
import { printableJson } from '../output/printable.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';

type Options = ConnectionOptions &
  ChangeOptions & {
    readonly plan?: string;
    readonly defaultPlan?: boolean;
    readonly suspend?: boolean;
    readonly resume?: boolean;
    readonly etag?: string;
    readonly json?: boolean;
  };

export function addOrganizationsUpdate(organizations: Command, terminal: Terminal): void {
  const command = organizations
    .command('update')
    .summary('change its plan, or suspend and resume it')
    .description(
      "Changes an organization's plan, or suspends it, which denies all its keys until it is resumed. A smaller plan " +
        'takes no key away: its limit holds for new ones.',
    );
  for (const option of [...organizationOptions(), ...actorOptions()]) command.addOption(option);
  command
    .optionsGroup('Changes:')
    .addOption(new Option('--plan <name>', "one of the keyspace's plans").conflicts('defaultPlan'))
    .option('--default-plan', "the keyspace's default plan, whichever it is")
    .addOption(new Option('--suspend', 'deny all its keys').conflicts('resume'))
    .option('--resume', 'deny them no more')
    .optionsGroup('Options:')
    .option('--etag <etag>', 'only if it still has this etag, which organizations get shows')
    .addOption(requestIdOption())
    .option('--json', 'print the answer as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example(
      'keyreeve organizations update --keyspace hookdeploy --organization acme --actor user:ada --permission api_keys.manage --plan team',
      'keyreeve organizations update --keyspace metlo --organization acme --actor user:ada --suspend',
    ),
  );
  command.action(async (options: Options) => updateOrganization(options, terminal));
}

async function updateOrganization(options: Options, terminal: Terminal): Promise<void> {
  const request = toRequest(options);
  using client = new ServiceClient(await toConnection(options, terminal));
  const answer = await client.call(OrganizationServiceService.updateOrganization, request, request.requestId);
  const { organization } = answer;
  if (!organization) throw new CommandFault(exitCodes.internal, 'the service answered no organization');
  await print(
    terminal,
    options.json ? toJson(organization, answer) : describe(organization, answer, options, new Date()),
  );
}

/** @throws UsageFault where no option changes anything */
function toRequest(options: Options): UpdateOrganizationRequest {
  const { plan, defaultPlan, suspend, resume } = options;
  if (plan === '') throw new UsageFault("--plan: expected one of the keyspace's plans, or --default-plan");
  const updateMask = [
    ...(plan === undefined && !defaultPlan ? [] : ['plan']),
    ...(suspend === true || resume === true ? ['suspended'] : []),
  ];
  if (updateMask.length === 0)
    throw new UsageFault('say what to change: --plan, --default-plan, --suspend or --resume');
  return {
    ...toChange(options),
    organization: Organization.create({ plan: plan ?? '', suspended: suspend === true }),
    updateMask,
    etag: options.etag ?? '',
  };
}

function toJson(organization: Organization, { enforcement }: UpdateOrganizationResponse): string {
  return printableJson({
    organization: toOrganizationJson(organization),
    enforcement: enforcement ? toEnforcementJson(enforcement) : null,
  });
}

function describe(
  organization: Organization,
  { enforcement }: UpdateOrganizationResponse,
  { suspend }: Options,
  now: Date,
): string {
  const takenAway = { what: 'a key of it', again: 'suspend it again' };
  return [
    `Updated ${organizationPath(organization)}.`,
    '',
    describeOrganization(organization),
    // What was asked may have happened long ago, under the same request id, and been undone since.
    ...(enforcement && suspend && organization.suspended
      ? ['', ...describeEnforcement(enforcement, takenAway, now)]
      : []),
  ].join('\n');
}
