import { execFile, type ExecFileOptions } from 'node:child_process';
import { promisify } from 'node:util';
import { guard } from './guard.js';

const execFilePromised = promisify(execFile);

/**
 * Runs a program to its end and answers what it printed.
 * @throws Error with the command's name and the last lines of its output, when it is missing, fails or takes too long
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  { timeoutMs = 300_000, ...where }: { timeoutMs?: number } & Pick<ExecFileOptions, 'cwd' | 'env' | 'uid' | 'gid'> = {},
): Promise<{ stdout: string; stderr: string }> {
  const limits = { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 64 << 20 } as const;
  const running = execFilePromised(command, args, { ...where, ...limits });
  const guarded = running.child.pid === undefined ? undefined : guard({ pid: running.child.pid });
  try {
    return await running;
  } catch (error) {
    throw new Error(`${command} ${whatBroke(error)}`, { cause: error });
  } finally {
    guarded?.release();
  }
}

function whatBroke(error: unknown): string {
  const {
    code,
    killed,
    stdout = '',
    stderr = '',
  } = error as Partial<{
    code: string | number;
    killed: boolean;
    stdout: string;
    stderr: string;
  }>;
  if (code === 'ENOENT') return 'is not installed';
  return `${killed ? 'took too long' : `failed (${code ?? 'signal'})`}: ${lastLines(stdout + stderr, 12)}`;
}

/** The end of a log, for an error message. */
export function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}
