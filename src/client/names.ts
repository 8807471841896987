/** The API's numbered values, by name. */

/** The names of an enum. `UNRECOGNIZED`: this version does not know the number. */
export type Named<Enum> = Exclude<keyof Enum, 'UNSPECIFIED'>;

export function nameIn<Enum extends Readonly<Record<string, string | number>>>(
  names: Enum,
  number: number,
): Named<Enum> {
  const name = names[number];
  return (typeof name === 'string' && name !== 'UNSPECIFIED' ? name : 'UNRECOGNIZED') as Named<Enum>;
}
