/** Grafana's dashboards as JSON has them: with an enum's strings in its place, and each kind of panel by its own options. */
import type {
  Dashboard,
  FieldConfigSource,
  GraphFieldConfig,
  Panel,
  RowPanel,
  VizLegendOptions,
  VizTooltipOptions,
} from "@grafana/schema";

type Plain<T> = 0 extends 1 & T
  ? T // any
  : T extends string
    ? `${T}`
    : T extends (infer Each)[]
      ? Plain<Each>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

interface Target {
  refId: string;
  expr: string;
  legendFormat: string;
  datasource: { type: "prometheus"; uid: string };
  format?: "table" | "time_series";
  instant?: boolean;
}

type Of<Kind extends string, Options, Custom> = Omit<
  Plain<Panel>,
  "type" | "options" | "fieldConfig" | "targets"
> & {
  type: Kind;
  options: Plain<Options>;
  fieldConfig: Omit<Plain<FieldConfigSource>, "defaults"> & {
    defaults: Omit<Plain<FieldConfigSource["defaults"]>, "custom"> & { custom?: Plain<Custom> };
  };
  targets: Target[];
};

export type OurDashboard = Omit<Plain<Dashboard>, "panels"> & {
  panels: (
    | (Omit<Plain<RowPanel>, "panels" | "type"> & { type: "row"; panels: [] })
    | Of<"timeseries", { legend: VizLegendOptions; tooltip: VizTooltipOptions }, GraphFieldConfig>
    | Of<"table", Record<string, never>, Record<string, never>>
  )[];
};
