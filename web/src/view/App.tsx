/** The whole page. */
export function App() {
  return <main>Antiphon</main>;
}
