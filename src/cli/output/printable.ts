// Controls move the cursor, formats (bidirectional overrides, zero-width characters) make text read as other text,
// and a lone surrogate is no text at all.
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Text of somebody else's, on one line and with what a terminal would act on made visible: `\u{202e}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** JSON in which the same characters are escaped, which changes no value. */
export function printableJson(value: unknown): string {
  // The line breaks and spaces between the values are JSON's own; inside of strings it escapes breaks by itself.
  return JSON.stringify(value, undefined, 2).replace(UNPRINTABLE, (character) =>
    character === '\n' ? character : toJsonEscapes(character),
  );
}

/** The same on one line: one of JSON Lines. */
export function printableJsonLine(value: unknown): string {
  return JSON.stringify(value).replace(UNPRINTABLE, toJsonEscapes);
}

function toJsonEscapes(character: string): string {
  return Array.from({ length: character.length }, (_, index) => {
    return `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`;
  }).join('');
}
