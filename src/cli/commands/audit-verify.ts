import { type Command, Option } from 'commander';

import { parseOrganizationId } from '../../keys/fields.js';
import { isRefusal } from '../../keys/refusal.js';
import { oneOf, parsedOption, repeatedOption } from '../arguments.js';
import { example } from '../command.js';
import type { ExitCode } from '../exit-codes.js';
import { UsageFault } from '../faults.js';
import { addConnectionOptions } from '../service/connection.js';
import type { Terminal } from '../terminal.js';
import type { Anchor, JudgeAuditOptions } from './judge-audit.js';

export function addAuditVerify(audit: Command, terminal: Terminal, end: (code: ExitCode) => void): void {
  const command = audit
    .command('verify')
    .summary('check that no audit event is missing or was changed')
    .description(
      'Checks the audit events against their chain: exit code 1 if one is missing, altered, out of order or replaced. ' +
        'Whoever can write to the store and to the copy could make a new chain: an --anchor kept elsewhere tells. The ' +
        "topic and the store are those of the service's own settings: KEYREEVE_KAFKA_BROKERS, KEYREEVE_DATA_DIR, ...",
    )
    .addOption(new Option('--file <path>', 'read an audit file').conflicts(['topic', 'store']))
    .addOption(new Option('--topic', 'read the audit topic').conflicts(['store']))
    .addOption(
      new Option('--store', 'read the store itself, and compare with where it says that its chains end').conflicts([
        'against',
      ]),
    )
    .addOption(
      parsedOption(
        '--against <what>',
        'compare with where the chains end in the store, or in the running service (as its auditor): store, service, ' +
          'or none, as is the default, and then a missing end is not seen',
        oneOf(['store', 'service', 'none']),
      ),
    )
    .addOption(
      repeatedOption(
        '--anchor <keyspace/org:sequence:hash>',
        'begin behind this event, which is trusted, and pass over what lies before it',
        parseAnchor,
      ),
    )
    .option('--installation <name>', 'events must come from it (default: from where the first one comes)')
    .option('--json', 'print the outcome as JSON, with the ends of all chains in the form of --anchor');
  addConnectionOptions(command).addHelpText(
    'after',
    example(
      'keyreeve audit verify --file data/audit.jsonl --against service',
      'keyreeve audit verify --topic --anchor metlo/acme:12:5f0c…',
    ),
  );
  command.action(async (options: JudgeAuditOptions) => {
    // The stores and Kafka take longer to load than most commands to run.
    const { judgeAudit } = await import('./judge-audit.js');
    end(await judgeAudit(options, terminal));
  });
}

/** `keyspace/organization:sequence:hash`: an organization id may hold colons. @throws UsageFault */
export function parseAnchor(text: string): Anchor {
  const [, keyspace, id, digits, hash] = /^([^/]+)\/(.+):(\d{1,15}):([0-9a-f]{64})$/.exec(text) ?? [];
  const organizationId = parseOrganizationId(id ?? '');
  const sequence = Number(digits);
  if (keyspace === undefined || hash === undefined || isRefusal(organizationId) || sequence < 1) {
    throw new UsageFault('expected keyspace/organization:sequence:hash, with the 64 hexadecimal digits of the hash');
  }
  return { organization: { keyspace, organizationId }, place: { sequence, hash } };
}
