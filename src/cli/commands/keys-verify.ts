import { KeyServiceService, type VerifyKeyRequest, type VerifyKeyResponse } from '../../gen/keyreeve/v1/key_service.js';
import { Decision, type RateLimit } from '../../gen/keyreeve/v1/verification.js';
import { organizationPath } from '../../keys/organization.js';
import type { Secret } from '../../keys/secret.js';
import { anyText, repeatedOption } from '../arguments.js';
import { example, type SafeCommand } from '../command.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { decisionName, toDurationJson, toRateLimitJson, toVerifiedKeyJson } from '../output/messages.js';
import { printableJson } from '../output/printable.js';
import { toFields } from '../output/table.js';
import { toMs, toShortTime } from '../output/times.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';
import { readSecret } from './read-secret.js';

type Options = ConnectionOptions & {
  readonly keyspace?: string;
  readonly organization?: string;
  readonly clientId?: string;
  readonly scope?: readonly string[];
  readonly json?: boolean;
};

export function addKeysVerify(keys: SafeCommand, terminal: Terminal, end: (code: ExitCode) => void): void {
  const command = keys
    .command('verify')
    .readsCredentialsFrom('standard input')
    .summary('say whether a credential is valid')
    .description(
      'Says whether a credential is valid: exit code 0 if it is, 1 if not. The token, or in pair form the secret, is ' +
        'read from standard input, never from the command line, where others would see it.',
    )
    .option('--keyspace <name>', 'look only in this keyspace; needed with --client-id')
    .option('--organization <id>', 'the key must belong to this organization')
    .option('--client-id <id>', 'the client id that goes with the secret, in pair form')
    .addOption(repeatedOption('--scope <scope>', 'the key must have this scope', anyText))
    .option('--json', 'print the answer as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example('keyreeve keys verify < key.txt', 'keyreeve keys verify --keyspace metal --client-id client_01… < key.txt'),
  );
  command.action(async (options: Options) => end(await verifyKey(options, terminal)));
}

async function verifyKey(options: Options, terminal: Terminal): Promise<ExitCode> {
  const connection = await toConnection(options, terminal);
  const prompt = options.clientId === undefined ? 'Token' : 'Secret';
  const request = toRequest(options, await readSecret(terminal, prompt));
  using client = new ServiceClient(connection);
  const answer = await client.call(KeyServiceService.verifyKey, request);
  await print(terminal, options.json ? toJson(answer) : describe(answer));
  return answer.decision === Decision.VALID ? exitCodes.ok : exitCodes.no;
}

function toRequest({ keyspace, organization, clientId, scope }: Options, secret: Secret): VerifyKeyRequest {
  return {
    keyspace: keyspace ?? '',
    organizationId: organization ?? '',
    credential: {
      kind:
        clientId === undefined
          ? { $case: 'bearerToken', value: secret.reveal() }
          : { $case: 'client', value: { clientId, secret: secret.reveal() } },
    },
    requiredScopes: [...(scope ?? [])],
  };
}

function toJson({ decision, key, rateLimit, cacheTtl }: VerifyKeyResponse): string {
  return printableJson({
    decision: decisionName(decision),
    key: key ? toVerifiedKeyJson(key) : null,
    rate_limit: rateLimit ? toRateLimitJson(rateLimit) : null,
    cache_ttl: toDurationJson(cacheTtl),
  });
}

function describe({ decision, key, rateLimit }: VerifyKeyResponse): string {
  const verdict = decision === Decision.VALID ? 'VALID' : `NOT VALID: ${decisionName(decision)}`;
  if (!key) return verdict;
  const fields = toFields([
    ['name', key.name],
    ['key id', key.keyId],
    ['organization', organizationPath(key)],
    ['type', key.type],
    ['scopes', key.scopes.join(' ')],
    ['expires', key.expireTime ? toShortTime(key.expireTime) : 'never'],
    ['rate limit', rateLimit && toRateText(rateLimit)],
  ]);
  return `${verdict}\n\n${fields}`;
}

function toRateText({ remaining, limit, retryAfter }: RateLimit): string {
  const again = retryAfter ? `; again in ${Math.ceil(toMs(retryAfter) / 1000)} s` : '';
  return `${remaining} of ${limit} left${again}`;
}
