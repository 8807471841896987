/** What is being made: fields that have no value are left out, and each of the others is set once. */
export type Writable<T> = { -readonly [Field in keyof T]: T[Field] };
