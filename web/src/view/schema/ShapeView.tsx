/** Draws a shape: labels and values, nested forms, lists and tables. Reading only. */
import { dialogWords } from "../../words/dialogs";
import type { Shape } from "./shape";

export function ShapeView({ shape }: { shape: Shape }) {
  if (shape.kind === "scalar") return <Scalar shape={shape} />;
  if (shape.kind === "object") return <Fields shape={shape} />;
  if (shape.kind === "table") return <Table shape={shape} />;
  return <List shape={shape} />;
}

type Of<K extends Shape["kind"]> = Extract<Shape, { kind: K }>;

function Scalar({ shape: { value, choices } }: { shape: Of<"scalar"> }) {
  const { schema } = dialogWords.value;
  if (value === null) return <em>{schema.nothing}</em>;
  if (value === "") return <em>{schema.emptyText}</em>;
  if (typeof value === "boolean") return <span class="mark">{value ? schema.yes : schema.no}</span>;
  if (choices) return <span class="mark">{String(value)}</span>;
  return <span class={typeof value === "number" ? "number" : "words"}>{String(value)}</span>;
}

function Fields({ shape: { fields } }: { shape: Of<"object"> }) {
  const { schema } = dialogWords.value;
  if (fields.length === 0) return <em>{schema.nothing}</em>;
  return (
    <dl>
      {fields.map(({ label, hint, shape }, i) => (
        <div key={`${i} ${label}`} data-nested={shape.kind !== "scalar"}>
          <dt>
            {label}
            {hint && <span class="hint">{hint}</span>}
          </dt>
          <dd>
            <ShapeView shape={shape} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

function List({ shape: { items } }: { shape: Of<"list"> }) {
  const { schema } = dialogWords.value;
  if (items.length === 0) return <em>{schema.emptyList}</em>;
  return (
    <ol data-short={items.every((item) => item.kind === "scalar")}>
      {items.map((item, i) => (
        <li key={i}>
          <ShapeView shape={item} />
        </li>
      ))}
    </ol>
  );
}

function Table({ shape: { columns, rows } }: { shape: Of<"table"> }) {
  return (
    <table>
      <thead>
        <tr>
          {columns.map((column) => (
            <th key={column} scope="col">
              {column}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((row, i) => (
          <tr key={i}>
            {row.map((cell, j) => (
              <td key={j}>{cell && <ShapeView shape={cell} />}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
