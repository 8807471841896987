import { type Document, parseDocument, type YAMLError } from 'yaml';
import type { z } from 'zod';

import { type Hides, judgeInput, type Problem } from './problems.js';

/**
 * Reads a YAML file's text with a schema, or says all that is wrong with it. What is not YAML is all that can be said
 * of a file, except for a field given twice: that hides nothing else.
 */
export function parseYaml<S extends z.ZodType>(
  schema: S,
  yamlText: string,
  hides: Hides = () => false,
): z.output<S> | Problem[] {
  const document = parseDocument(yamlText, { prettyErrors: true, stringKeys: true, version: '1.2' });
  const faults = [...document.errors, ...document.warnings];
  const problems = faults.map(toProblem);
  if (faults.some(({ code }) => code !== 'DUPLICATE_KEY')) return problems;
  const content = contentOf(document);
  if ('path' in content) return [...problems, content];
  const answer = judgeInput(schema, content.data, hides);
  if (Array.isArray(answer)) return [...problems, ...answer];
  return problems.length > 0 ? problems : answer;
}

// The library's messages quote the text, which in a callers file may be a token: its code and the place say enough.
function toProblem({ code, linePos }: YAMLError): Problem {
  const [start] = linePos ?? [];
  return {
    path: start ? `line ${start.line}, column ${start.col}` : 'YAML',
    message: `${code.toLowerCase().replaceAll('_', ' ')}; expected one document of YAML 1.2`,
  };
}

function contentOf(document: Document): { data: unknown } | Problem {
  try {
    return { data: document.toJS() };
  } catch (error) {
    // Thrown for an alias without its anchor, and for aliases that multiply beyond reason.
    if (!(error instanceof ReferenceError)) throw error;
    return { path: 'YAML', message: 'an alias that cannot be resolved; expected the anchor above it, and few aliases' };
  }
}
