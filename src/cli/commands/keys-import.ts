import { Option } from 'commander';

import { systemClock } from '../../keys/clock.js';
import { type ActorOptions, actorOptions, parseCount, parsedOption, toActor } from '../arguments.js';
import { example, type SafeCommand } from '../command.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { toFailureJson, toKeyJson } from '../output/messages.js';
import { printableJsonLine } from '../output/printable.js';
import { parseDurationOrZeroMs } from '../output/times.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, remark, type Terminal } from '../terminal.js';
import { gather, Importer, type Outcome, type Parsed } from './import-batches.js';
import { isFailure, parseImportLine } from './import-line.js';
import { type ImportSource, openImport } from './import-source.js';
import { Progress } from './progress.js';

const RETRY_FOR_MS = 30_000;

type Options = ConnectionOptions &
  ActorOptions & {
    readonly keyspace: string;
    readonly organization?: string;
    readonly file: string;
    readonly fromLine: number;
    /** Milliseconds. */
    readonly retryFor: number;
    readonly dryRun?: boolean;
    readonly json?: boolean;
  };

const LINES = [
  '',
  'A line is a JSON object that tells of one key. A field that is null is not given.',
  '  digest                         SHA-256 of the token, or in pair form of the secret:',
  '                                 64 hexadecimal digits, or base64',
  '  token                          the token itself, instead of its digest',
  '  client_id, secret              the same in pair form; client_id goes with a digest too',
  '  organization                   the owner, where --organization is not given',
  '  name, type, scopes, labels     as keys create takes them: scopes a list, labels an object',
  '  display                        what may be shown of the credential; with a digest only',
  '  create_time, expire_time,',
  '  last_use_time                  such as 2027-01-01T00:00:00Z',
  '  disabled                       true: the key arrives switched off',
].join('\n');

export function addKeysImport(keys: SafeCommand, terminal: Terminal, end: (code: ExitCode) => void): void {
  const command = keys
    .command('import')
    .readsCredentialsFrom('--file')
    .summary('take over keys that were issued elsewhere')
    .description(
      'Takes over keys that were issued elsewhere, from JSON Lines: of each its digest, or the secret itself, of which ' +
        'a digest alone is kept. A file with secrets must be for its owner alone (chmod 600). A line that is refused is ' +
        'told with its number, and the others go on: exit code 1 if there is one. Running it again makes no second key.',
    )
    .addOption(new Option('--keyspace <name>', 'the keyspace of the keys').makeOptionMandatory())
    .option('--organization <id>', 'the organization that is to own the keys (default: as each line says)');
  for (const option of actorOptions()) command.addOption(option);
  command
    .addOption(new Option('--file <path>', 'the lines; - reads standard input').makeOptionMandatory())
    .addOption(parsedOption('--from-line <number>', 'begin with this line', parseCount).default(1, 'the first'))
    .addOption(
      parsedOption(
        '--retry-for <duration>',
        'while the service is away, try again for so long',
        parseDurationOrZeroMs,
      ).default(RETRY_FOR_MS, '30s'),
    )
    .option('--dry-run', 'check the form of the lines alone, and send nothing')
    .option('--json', 'print what became of each line as JSON, a line each');
  addConnectionOptions(command).addHelpText(
    'after',
    `${LINES}\n${example(
      'keyreeve keys import --keyspace hookdeploy --organization acme --actor user:ada --permission api_keys.manage --file keys.jsonl',
      `echo '{"organization":"acme","digest":"9f86d0…0a08","name":"ci"}' | keyreeve keys import --keyspace metlo --actor user:ada --file -`,
    )}`,
  );
  command.action(async (options: Options) => end(await importKeys(options, terminal)));
}

async function importKeys(options: Options, terminal: Terminal): Promise<ExitCode> {
  const request = { keyspace: options.keyspace, actor: toActor(options) };
  const connection = options.dryRun ? undefined : await toConnection(options, terminal);
  await using source = await openImport(options.file, terminal);
  using client = connection && new ServiceClient(connection);
  const importer = client && new Importer(client, request, { clock: systemClock, retryForMs: options.retryFor });
  using report = new Report(options, terminal, source);
  for await (const lines of gather(parse(source, options, report), request)) {
    await report.settling(lines, async (settle) => {
      if (importer) await importer.import(lines, settle);
      else for (const line of lines) settle(checked(line));
    });
  }
  await report.sum();
  return report.refused > 0 ? exitCodes.no : exitCodes.ok;
}

async function* parse(
  source: ImportSource,
  { organization, fromLine }: Options,
  report: Report,
): AsyncGenerator<Parsed, void> {
  for await (const { number: line, bytes, endByte } of source.lines()) {
    report.readBytes = endByte;
    const parsed = line < fromLine ? undefined : parseImportLine(bytes, organization);
    if (parsed) yield isFailure(parsed) ? { line, failure: parsed } : { line, ...parsed };
  }
}

type Told = Outcome | { readonly line: number; readonly outcome: 'WELL_FORMED' };

function checked(parsed: Parsed): Told {
  if ('failure' in parsed) return { line: parsed.line, outcome: 'REFUSED', failure: parsed.failure };
  return { line: parsed.line, outcome: 'WELL_FORMED' };
}

/** Tells what became of the lines. */
class Report implements Disposable {
  readonly #options: Options;
  readonly #terminal: Terminal;
  readonly #source: ImportSource;
  readonly #progress: Progress | undefined;
  readonly #counts = { IMPORTED: 0, ALREADY_IMPORTED: 0, REFUSED: 0, WELL_FORMED: 0 };
  /** How much of the source has been read. */
  readBytes = 0;

  constructor(options: Options, terminal: Terminal, source: ImportSource) {
    this.#options = options;
    this.#terminal = terminal;
    this.#source = source;
    this.#progress = terminal.stderr.isTTY ? new Progress(terminal.stderr, systemClock) : undefined;
  }

  get refused(): number {
    return this.#counts.REFUSED;
  }

  /**
   * Tells of these lines in their order, once what there is to know of them is known.
   * @throws CommandFault where the rest remains unknown, with where to go on
   */
  async settling(lines: readonly Parsed[], work: (settle: (outcome: Told) => void) => Promise<void>): Promise<void> {
    const settled = new Map<number, Told>();
    const inOrder = () => [...settled.values()].sort((a, b) => a.line - b.line);
    try {
      await work((outcome) => void settled.set(outcome.line, outcome));
    } catch (error) {
      await this.#tell(inOrder());
      if (!(error instanceof CommandFault)) throw error;
      throw this.#brokenOff(error, lines.find(({ line }) => !settled.has(line))?.line);
    }
    await this.#tell(inOrder());
  }

  async sum(): Promise<void> {
    this.#progress?.clear();
    const text = this.#options.dryRun ? `${this.#describe()}; nothing was sent.` : `${this.#describe()}.`;
    if (this.#options.json) remark(this.#terminal, text);
    else await print(this.#terminal, text);
  }

  [Symbol.dispose](): void {
    this.#progress?.[Symbol.dispose]();
  }

  async #tell(outcomes: readonly Told[]): Promise<void> {
    for (const told of outcomes) {
      this.#counts[told.outcome] += 1;
      if (told.outcome !== 'REFUSED') continue;
      const { reason, field, message } = told.failure;
      this.#progress?.clear();
      remark(this.#terminal, `line ${told.line}: ${reason}${field === '' ? '' : ` (${field})`}: ${message}`);
    }
    if (this.#options.json && outcomes.length > 0) await print(this.#terminal, outcomes.map(toJson).join('\n'));
    const { bytes } = this.#source;
    this.#progress?.say(this.#describe(), bytes === undefined ? undefined : Math.min(this.readBytes / bytes, 1));
  }

  #describe(): string {
    const { IMPORTED, ALREADY_IMPORTED, REFUSED, WELL_FORMED } = this.#counts;
    const count = (number: number): string => number.toLocaleString('en-US');
    const lines = IMPORTED + ALREADY_IMPORTED + REFUSED + WELL_FORMED;
    const good = this.#options.dryRun
      ? `${count(WELL_FORMED)} well-formed`
      : `${count(IMPORTED)} imported, ${count(ALREADY_IMPORTED)} already there`;
    return `${count(lines)} line${lines === 1 ? '' : 's'}: ${good}, ${count(REFUSED)} refused`;
  }

  #brokenOff(fault: CommandFault, line: number | undefined): CommandFault {
    const goOn = line === undefined ? '' : `go on with --from-line ${line}, or `;
    const message = `${fault.message}; before that ${this.#describe()}; ${goOn}run it again from the start: no key is imported twice`;
    return new CommandFault(fault.exitCode, message, { cause: fault });
  }
}

function toJson(told: Told): string {
  return printableJsonLine({
    line: told.line,
    outcome: told.outcome,
    key: 'key' in told ? toKeyJson(told.key) : null,
    failure: 'failure' in told ? toFailureJson(told.failure) : null,
  });
}
