/** The variables that the command reads for itself; those of the service are `src/config`'s. */
export const variables = {
  server: 'KEYREEVE_SERVER',
  caCert: 'KEYREEVE_CA_CERT',
  clientCert: 'KEYREEVE_CLIENT_CERT',
  clientKey: 'KEYREEVE_CLIENT_KEY',
  token: 'KEYREEVE_TOKEN',
  tokenFile: 'KEYREEVE_TOKEN_FILE',
} as const;

/** One that is empty counts as not set. */
export function readEnvironment(env: NodeJS.ProcessEnv): Partial<Record<keyof typeof variables, string>> {
  const entries = Object.entries(variables).map(([name, variable]) => [name, env[variable]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== ''));
}

export function explainEnvironment(): string {
  return [
    'Environment:',
    `  ${variables.server}       host:port of the service, instead of --server`,
    `  ${variables.caCert}      file with the certificates that sign the service's, instead of --ca-cert`,
    `  ${variables.clientCert}  file with the caller's certificate, instead of --client-cert`,
    `  ${variables.clientKey}   file with the key of that, instead of --client-key`,
    `  ${variables.token}        the caller's token`,
    `  ${variables.tokenFile}   file with the caller's token, instead of --token-file`,
  ].join('\n');
}
