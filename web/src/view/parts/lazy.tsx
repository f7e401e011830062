/** Components whose code is loaded when they are first shown, so that the page itself is small. */
import { type ComponentType, type FunctionComponent } from "preact";
import { useEffect, useState } from "preact/hooks";

import { words } from "../../words";
import { toast } from "../ui";

/** Shows nothing until the code is there. If it cannot be loaded, says so and calls the component's `onClose`. */
export function lazy<P extends { onClose?: () => void }>(load: () => Promise<ComponentType<P>>): FunctionComponent<P> {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [, arrived] = useState(false);
    const { onClose } = props;
    useEffect(() => {
      if (loaded) return;
      load().then(
        (component) => {
          loaded = component;
          arrived(true);
        },
        () => {
          toast(words.value.extras.loadFailed);
          onClose?.();
        },
      );
    }, [onClose]);
    const Component = loaded;
    return Component && <Component {...props} />;
  };
}
