/** Components that are rendered again only if one of their properties is another one. */
import { Component, type ComponentChild } from "preact";

export function still<P extends object>(show: (props: P) => ComponentChild) {
  return class Still extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      const before = this.props as Record<string, unknown>;
      return Object.entries(next).some(([name, value]) => before[name] !== value);
    }

    override render(props: P): ComponentChild {
      return show(props);
    }
  };
}
