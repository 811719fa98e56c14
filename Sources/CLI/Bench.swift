import ArgumentParser
import AudioToken
import Glibc
import Models
import Tensors
import WeightFile

extension Benchmark.Stage: ExpressibleByArgument {}

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure how fast this machine is.",
    discussion: """
      Without a model: rates of the kernels at the shapes of Stable Diffusion 1.x, in 10^9 multiply-accumulates a \
      second, beside the ceiling of the instructions that they are made of, measured in turn: medians, and the best of \
      each, which says more where others use the processor too, with --repetitions 40. With a model: seconds of its \
      stages, and what they go to.
      """)

  @Argument(help: "The weight file.")
  var model: String?

  @Option(help: "Repetitions after one to warm up; medians are shown. Of kernels, five at least.")
  var repetitions = 3

  @Option(help: "Only this stage: beats, projector, text, unet_step or vae_decode.")
  var stage: [Benchmark.Stage] = []

  @Option(help: "The picture's width in pixels.")
  var width: Int?

  @Option(help: "The picture's height in pixels.")
  var height: Int?

  @OptionGroup var memoryOptions: MemoryOptions
  @OptionGroup var runOptions: RunOptions

  @Flag(help: "Print the results as JSON on standard output.")
  var json = false

  func run() throws {
    guard (1...1000).contains(repetitions) else {
      throw AudioTokenError(.usage, "--repetitions is \(repetitions), where 1 to 1000 is expected; 3 is usual.")
    }
    try refuseWithoutModel()
    let members = try model.map(stages) ?? kernels()
    guard json else { return }
    let memory = ProcessMemory.now()
    print(JSONText.object(members + [("peak_rss_bytes", .integer(memory.peakResident))]).text)
  }

  private func refuseWithoutModel() throws {
    guard model == nil else { return }
    let given: [(name: String, isGiven: Bool)] = [
      ("--stage", !stage.isEmpty), ("--width", width != nil), ("--height", height != nil),
      ("--max-ram", memoryOptions.maxRam != nil),
    ]
    guard let option = given.first(where: \.isGiven) else { return }
    throw AudioTokenError(
      .usage, "\(option.name) is for a model, which is expected before it, as in: audiotoken bench audiotoken.gguf.")
  }

  // MARK: Stages

  private func stages(_ model: String) throws -> [(String, JSONText)] {
    let pipeline = try runOptions.pipeline(model)
    let benchmark = try Benchmark(pipeline, width: width, height: height, maxRAM: memoryOptions.maxRam?.bytes)
    var reports: [JSONText] = []
    for stage in Benchmark.Stage.allCases where self.stage.isEmpty || self.stage.contains(stage) {
      let result = try benchmark.run(stage, repetitions: repetitions)
      show(result)
      reports.append(report(result))
    }
    return [("kernels", .string(pipeline.kernelName)), ("stages", .array(reports))]
  }

  private func show(_ result: Benchmark.Result) {
    guard !json else { return }
    let rate = result.products > 0 ? ", \(tenths(Double(result.products) / result.median / 1e9)) GMAC/s" : ""
    print("\(result.stage.rawValue): \(thousandths(result.median)) s\(rate)")
    let total = result.seconds.reduce(0, +)
    var rest = total
    for (work, entry) in result.work {
      rest -= entry.seconds
      line(work.rawValue, entry.seconds, of: total, result, products: entry.products)
    }
    line("everything else", rest, of: total, result, products: 0)
  }

  private func line(_ name: String, _ seconds: Double, of total: Double, _ result: Benchmark.Result, products: Int) {
    let share = 100 * seconds / total
    var line = "  " + padded(name, 18) + left(tenths(share) + " %", 8)
    line += left(thousandths(seconds / Double(result.seconds.count)) + " s", 12)
    if products > 0 { line += left(tenths(Double(products) / seconds / 1e9) + " GMAC/s", 14) }
    print(line)
  }

  private func report(_ result: Benchmark.Result) -> JSONText {
    let count = Double(result.seconds.count)
    return .object([
      ("name", .string(result.stage.rawValue)), ("seconds", .number(result.median)),
      ("seconds_all", .array(result.seconds.map(JSONText.number))), ("products", .integer(result.products)),
      (
        "work",
        .object(
          result.work.map {
            (
              $0.work.rawValue,
              .object([
                ("seconds", .number($0.entry.seconds / count)),
                ("products", .integer($0.entry.products / result.seconds.count)),
              ])
            )
          })
      ),
    ])
  }

  // MARK: Kernels

  private func kernels() throws -> [(String, JSONText)] {
    let benchmark = try runOptions.kernelBenchmark(repetitions: max(repetitions, 5))
    let handover = KernelBenchmark.handover() * 1e9
    if !json {
      print("kernels \(benchmark.kernelName)")
      print("a line of the cache from core to core and back: \(tenths(handover)) ns")
    }
    var reports: [JSONText] = []
    for form in CodeForm.allCases.reversed() {
      for shape in KernelBenchmark.shapes {
        reports.append(show(try benchmark.rate(shape, form), form: form.rawValue))
      }
    }
    for rate in try benchmark.winogradRates() { reports.append(show(rate, form: MappedWeights.winograd)) }
    for (tokens, width) in [(4096, 40), (1024, 80), (256, 160)] {
      reports.append(show(try benchmark.attentionRate(tokens: tokens, headWidth: width), form: "int8"))
    }
    return [
      ("kernels", .string(benchmark.kernelName)), ("handover_nanoseconds", .number(handover)),
      ("rates", .array(reports)),
    ]
  }

  private func show(_ rate: KernelBenchmark.Rate, form: String) -> JSONText {
    if !json {
      var line = padded(form, 8) + " " + padded(rate.name, 40) + left(tenths(rate.rate / 1e9), 7) + " GMAC/s"
      if let ceiling = rate.ceiling {
        line += left(tenths(100 * rate.rate / ceiling), 7) + " % of \(tenths(ceiling / 1e9))"
      }
      if let ceiling = rate.bestCeiling {
        line += ", best" + left(tenths(rate.bestRate / 1e9), 7) + left(tenths(100 * rate.bestRate / ceiling), 7) + " %"
      }
      print(line)
    }
    return .object([
      ("form", .string(form)), ("name", .string(rate.name)), ("products_per_second", .number(rate.rate)),
      ("ceiling", rate.ceiling.map(JSONText.number) ?? .null), ("best_products_per_second", .number(rate.bestRate)),
      ("best_ceiling", rate.bestCeiling.map(JSONText.number) ?? .null),
    ])
  }

  // MARK: Text

  private func tenths(_ value: Double) -> String { decimal(value, 1) }
  private func thousandths(_ value: Double) -> String { decimal(value, 3) }

  private func decimal(_ value: Double, _ places: Int) -> String {
    guard value.isFinite, value.magnitude < 1e12 else { return "-" }
    let unit = places == 1 ? 10 : 1000
    let scaled = Int((value * Double(unit)).rounded())
    let fraction = String(scaled.magnitude % UInt(unit))
    let zeros = String(repeating: "0", count: places - fraction.count)
    return (scaled < 0 ? "-" : "") + "\(scaled.magnitude / UInt(unit)).\(zeros)\(fraction)"
  }

  private func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }
  private func left(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}
