/** A button that shows an icon alone; its name is read out and shown on hover. */
import { Icon, type IconName } from "./icons";

interface Props {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  name?: string; // to find it again
}

export function ToolButton({ icon, label, onClick, disabled = false, name }: Props) {
  return (
    <button
      type="button"
      class="tool"
      aria-label={label}
      title={label}
      disabled={disabled}
      data-name={name}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}
