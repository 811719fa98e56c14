import ArgumentParser
import AudioToken
import WeightFile

struct Memory: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what a picture takes of memory, stage by stage.",
    discussion: """
      Planned, from the file's header alone: the stage's weights, how much of them is in memory at once (the window), its \
      activations (the arena) and the peak of resident memory. With --run also measured: the kernel's accounts of a run on a \
      sound.
      """)

  @Argument(help: "The weight file.")
  var model: String

  @Option(help: "The picture's width in pixels; the model's own by default.")
  var width: Int?

  @Option(help: "The picture's height in pixels; the model's own by default.")
  var height: Int?

  @Option(
    name: .customLong("run"), help: ArgumentHelp("A sound to make a picture from, to measure.", valueName: "sound"))
  var sound: String?

  @Option(help: "Sampling steps of that run; its memory does not depend on them.")
  var steps = 2

  @OptionGroup var memoryOptions: MemoryOptions
  @OptionGroup var runOptions: RunOptions

  @Flag(help: "Print JSON; with --run also samples of the resident memory over time.")
  var json = false

  func run() throws {
    let pipeline = try runOptions.pipeline(model)
    var settings = GenerationSettings()
    settings.width = width
    settings.height = height
    settings.steps = steps
    settings.maxRAM = memoryOptions.maxRam?.bytes
    let plan = try pipeline.memoryPlan(settings)
    let machine = SystemMemory.available()
    var meter: MemoryMeter?
    if let sound {
      let started = MemoryMeter(pipeline)
      _ = try pipeline.generate(from: SoundSelection(path: sound), settings: settings) { started.note($0) }
      meter = started
    }
    if json {
      print(report(plan, machine, meter).text)
    } else {
      show(plan, machine, meter)
    }
  }

  // MARK: Text

  private func show(_ plan: MemoryPlan, _ machine: SystemMemory, _ meter: MemoryMeter?) {
    let group = machine.limit.map { ", a control group allows \(ByteCount.describe($0))" } ?? ""
    print("machine: \(ByteCount.describe(machine.total)), \(ByteCount.describe(machine.free)) free\(group)")
    print("least for this picture: \(ByteCount.describe(plan.minimum))")
    let way = plan.isFrugal ? ", the decoder computes its widest map three times" : ""
    print("planned peak: \(ByteCount.describe(plan.peak))\(way)\n")
    print(row(["planned", "weights", "window", "arena", "peak"]))
    for stage in plan.stages {
      print(
        row([stage.step.rawValue] + [stage.weights, stage.window, stage.arena, stage.peak].map(ByteCount.describe)))
    }
    guard let meter else { return }
    print("\n" + row(["measured", "arena", "peak", "anonymous", "file", "read", "faults", "seconds"]))
    for stage in meter.stages {
      print(
        row(
          [stage.step.rawValue]
            + [stage.arena, stage.peak, stage.anonymous, stage.file, stage.bytesRead].map(ByteCount.describe)
            + [String(stage.majorFaults), Terminal.tenths(stage.seconds)]))
    }
    print("\nmeasured peak: \(ByteCount.describe(meter.peak))")
  }

  private func row(_ cells: [String]) -> String {
    let first = cells[0] + String(repeating: " ", count: max(1, 10 - cells[0].count))
    return first + cells.dropFirst().map { String(repeating: " ", count: max(1, 11 - $0.count)) + $0 }.joined()
  }

  // MARK: JSON

  private func report(_ plan: MemoryPlan, _ machine: SystemMemory, _ meter: MemoryMeter?) -> JSONText {
    var members: [(String, JSONText)] = [
      ("model", .string(model)),
      (
        "machine",
        .object([
          ("total_bytes", .integer(machine.total)), ("free_bytes", .integer(machine.free)),
          ("group_limit_bytes", machine.limit.map(JSONText.integer) ?? .null),
        ])
      ),
      ("max_ram_bytes", memoryOptions.maxRam.map { .integer($0.bytes) } ?? .null),
      ("base_bytes", .integer(plan.base)), ("least_bytes", .integer(plan.minimum)),
      ("planned_peak_bytes", .integer(plan.peak)), ("frugal", .bool(plan.isFrugal)),
      ("keeps_text", .bool(plan.keepsText)),
      ("planned", .array(plan.stages.map(report))),
    ]
    if let meter {
      members += [
        ("measured_peak_bytes", .integer(meter.peak)), ("measured", .array(meter.stages.map(report))),
        ("samples", .array(meter.samples.map(report))),
      ]
    }
    return .object(members)
  }

  private func report(_ stage: MemoryPlan.Stage) -> JSONText {
    .object([
      ("stage", .string(stage.step.rawValue)), ("weights_bytes", .integer(stage.weights)),
      ("window_bytes", .integer(stage.window)), ("arena_bytes", .integer(stage.arena)),
      ("peak_resident_bytes", .integer(stage.peak)),
    ])
  }

  private func report(_ stage: MemoryMeter.Stage) -> JSONText {
    .object([
      ("stage", .string(stage.step.rawValue)), ("arena_bytes", .integer(stage.arena)),
      ("peak_resident_bytes", .integer(stage.peak)), ("anonymous_bytes", .integer(stage.anonymous)),
      ("file_bytes", .integer(stage.file)), ("read_bytes", .integer(stage.bytesRead)),
      ("major_faults", .integer(stage.majorFaults)), ("seconds", .number(stage.seconds)),
    ])
  }

  private func report(_ sample: MemoryMeter.Sample) -> JSONText {
    .object([
      ("seconds", .number(sample.seconds)), ("stage", .string(sample.step.rawValue)),
      ("resident_bytes", .integer(sample.memory.resident)),
      ("anonymous_bytes", .integer(sample.memory.residentAnonymous)),
      ("file_bytes", .integer(sample.memory.residentFile)),
    ])
  }
}
