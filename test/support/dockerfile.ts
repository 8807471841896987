/** As much of a Dockerfile and of a .dockerignore as this project's own have. */
import { readFileSync } from 'node:fs';

export interface Instruction {
  readonly name: string;
  /** As it stands there, continuation lines joined. */
  readonly text: string;
}

export interface Stage {
  readonly image: string;
  /** As others call it; empty for one without a name. */
  readonly name: string;
  readonly instructions: readonly Instruction[];
}

/** The stages, first to last. */
export function readDockerfile(path: string): Stage[] {
  const lines = readFileSync(path, 'utf8')
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll('\\\n', ' ')
    .split('\n');
  const stages: { image: string; name: string; instructions: Instruction[] }[] = [];
  for (const line of lines.filter((line) => line.trim() !== '')) {
    const [, name = '', text = ''] = /^([A-Z]+) +(.*)$/.exec(line) ?? [];
    if (name === '') throw new Error(`${path}: no instruction: ${line}`);
    const [image = '', , stage = ''] = text.split(/ +/);
    if (name === 'FROM') stages.push({ image, name: stage, instructions: [] });
    else stages.at(-1)?.instructions.push({ name, text });
  }
  return stages;
}

export function textsOf({ instructions }: Stage, name: string): string[] {
  return instructions.filter((instruction) => instruction.name === name).map(({ text }) => text);
}

/** What an instruction in exec form runs: `["keyreeve", "serve"]`, after its options. */
export function execFormOf(text: string): string[] {
  return JSON.parse(text.slice(text.indexOf('['))) as string[];
}

/** Whether the build gets a path, `/` between its parts: of the rules that name it or a folder above it the last one counts. */
export function ignoreRules(path: string): (file: string) => boolean {
  const rules = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({ lets: line.startsWith('!'), place: line.replace(/^!/, '') }));
  return (file) => {
    const naming = rules.filter(({ place }) => place === '*' || file === place || file.startsWith(`${place}/`));
    return naming.at(-1)?.lets ?? true;
  };
}
