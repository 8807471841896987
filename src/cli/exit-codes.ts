/** What the command ends with: scripts decide by it. Numbers keep their meaning from version to version. */
export const exitCodes = {
  ok: 0,
  no: 1,
  usage: 2,
  refused: 3,
  denied: 4,
  unavailable: 5,
  internal: 70,
  interrupted: 130,
  outputClosed: 141,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

const MEANINGS: Readonly<Record<keyof typeof exitCodes, string>> = {
  ok: 'done; of a verification: the key is valid',
  no: 'the answer is no: the credential is not valid, the audit has a fault, a file has problems, a line was refused, the service cannot answer',
  usage: 'the command line, an input file or a setting of the command is at fault',
  refused: 'the service refused: an argument, not found, a conflict, a limit',
  denied: 'the service does not know the caller, or does not allow it this',
  unavailable: 'the service or the store could not answer: try again',
  internal: 'a fault of the service or of this command',
  interrupted: 'interrupted with Ctrl-C',
  outputClosed: 'whoever read the output has gone',
};

/** The table that `--help` shows. */
export function explainExitCodes(): string {
  const lines = Object.entries(MEANINGS).map(([name, meaning]) => {
    const code = exitCodes[name as keyof typeof exitCodes];
    return `  ${String(code).padEnd(5)}${meaning}`;
  });
  return ['Exit codes:', ...lines].join('\n');
}
