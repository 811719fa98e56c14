import AudioToken
import WeightFile

/// `audiotoken generate` with several sounds or seeds: a sheet, single pictures, or both.
struct GridRun {
  private let command: Generate
  private let pipeline: Pipeline
  private let grid: Grid
  private let sheet: OutputFile?
  private let folder: OutputFolder?
  /// Where each single picture goes, row by row.
  private let files: [String]

  /// Opens the sheet and finds out whether all pictures can be written.
  init(_ command: Generate, _ pipeline: Pipeline) throws(AudioTokenError) {
    self.command = command
    self.pipeline = pipeline
    let grid = Grid(
      sounds: command.sound.map { command.soundOptions.selection($0) }, seeds: command.seeds,
      sheetScale: command.output == nil ? nil : command.scale)
    self.grid = grid
    let inputs = [command.model] + command.sound
    let folder = try command.pictures.map { path throws(AudioTokenError) in try OutputFolder(path) }
    let files = folder.map { Self.names(grid, in: $0.path) } ?? []
    do throws(AudioTokenError) {
      for file in files { try OutputFile(file, keeping: inputs).abandon() }
      // The pictures are there before the sheet is; it may not take the place of one.
      sheet = try command.output.map { path throws(AudioTokenError) in
        if files.contains(path) {
          throw AudioTokenError(.usage, "\(path) is one of the pictures of --pictures; give the sheet another name.")
        }
        return try OutputFile(path, keeping: inputs)
      }
    } catch {
      folder?.abandon()
      throw error
    }
    (self.folder, self.files) = (folder, files)
  }

  /// FOLDER/SOUND-seedNUMBER.png; a number sets sounds of one name apart.
  static func names(_ grid: Grid, in folder: String) -> [String] {
    var taken: Set<String> = []
    return grid.sounds.flatMap { sound -> [String] in
      let stem = stem(sound.path)
      var name = stem
      var number = 1
      while !taken.insert(name).inserted {
        number += 1
        name = "\(stem)-\(number)"
      }
      return grid.seeds.map { "\(folder)/\(name)-seed\($0).png" }
    }
  }

  /// The name of a file without its folder and its ending, short enough to add to.
  private static func stem(_ path: String) -> String {
    let name = path.split(separator: "/").last ?? "sound"
    var stem = name.lastIndex(of: ".").map { name[..<$0] } ?? name
    if stem.isEmpty { stem = name }
    while stem.utf8.count > 200 { stem.removeLast() }
    return String(stem)
  }

  func make() throws {
    var terminal = Terminal(quiet: command.quiet)
    var log = Log()
    let picture: Picture?
    do {
      picture = try pipeline.generate(
        grid, settings: command.settings, progress: { show($0, &terminal, &log) },
        use: { (picture) throws(AudioTokenError) in try keep(picture, terminal, &log) })
    } catch {
      folder?.abandon()
      throw error
    }
    if let picture { try sheet?.finish(try picture.png()) }
    let place = command.output ?? folder?.path ?? ""
    let size = picture.map { "\($0.width) x \($0.height), " } ?? ""
    terminal.say(
      "\(place): \(grid.count) pictures, \(size)\(Terminal.tenths(terminal.elapsed)) s, peak "
        + "\(ByteCount.describe(ProcessMemory.now().peakResident)) in RAM")
    if command.json { print(report(picture, terminal, log).text) }
  }

  /// What is to be reported of what was made so far.
  private struct Log {
    var sounds: [JSONText] = []
    var pictures: [JSONText] = []
    /// Of the terminal, where the current sound or picture begins.
    var firstStage = 0
    var start = 0.0
    /// When the first picture was begun.
    var firstPicture: Double?
  }

  private func show(_ progress: GridProgress, _ terminal: inout Terminal, _ log: inout Log) {
    switch progress {
    case .sound(let row):
      finishSound(terminal, &log)
      begin(terminal, &log)
      terminal.say("sound \(row + 1) of \(grid.sounds.count): \(grid.sounds[row].path)")
    case .picture(let row, let column):
      finishSound(terminal, &log)
      begin(terminal, &log)
      let done = row * grid.seeds.count + column
      var line = "picture \(done + 1) of \(grid.count): \(grid.sounds[row].path), seed \(grid.seeds[column])"
      if let first = log.firstPicture, done > 0 {
        let each = (terminal.elapsed - first) / Double(done)
        line += ", about \(terminal.clock(each * Double(grid.count - done))) left for all"
      } else {
        log.firstPicture = terminal.elapsed
      }
      terminal.say(line)
    case .stage(let progress): terminal.show(progress)
    }
  }

  private func begin(_ terminal: Terminal, _ log: inout Log) {
    log.firstStage = terminal.stages.count
    log.start = terminal.elapsed
  }

  private func finishSound(_ terminal: Terminal, _ log: inout Log) {
    let row = log.sounds.count
    guard row < grid.sounds.count, terminal.stages.count > log.firstStage else { return }
    log.sounds.append(
      .object([
        ("sound", .string(grid.sounds[row].path)), ("seconds", .number(terminal.elapsed - log.start)),
        ("stages", terminal.report(from: log.firstStage)),
      ]))
  }

  private func keep(_ made: GridPicture, _ terminal: Terminal, _ log: inout Log) throws(AudioTokenError) {
    var file = JSONText.null
    if !files.isEmpty {
      let path = files[made.row * grid.seeds.count + made.column]
      try OutputFile(path, keeping: [command.model] + command.sound).finish(try made.picture.png())
      file = .string(path)
    }
    log.pictures.append(
      .object([
        ("row", .integer(made.row)), ("column", .integer(made.column)),
        ("sound", .string(grid.sounds[made.row].path)), ("seed", .string(String(grid.seeds[made.column]))),
        ("output", file), ("width", .integer(made.picture.width)), ("height", .integer(made.picture.height)),
        ("seconds", .number(made.seconds)),
        ("settings", .object(made.picture.provenance.map { ($0.key, .string($0.value)) })),
        ("stages", terminal.report(from: log.firstStage)),
      ]))
  }

  private func report(_ sheet: Picture?, _ terminal: Terminal, _ log: Log) -> JSONText {
    .object([
      ("output", command.output.map(JSONText.string) ?? .null), ("width", sheet.map { .integer($0.width) } ?? .null),
      ("height", sheet.map { .integer($0.height) } ?? .null), ("scale", .integer(command.scale)),
      ("seconds", .number(terminal.elapsed)), ("peak_resident_bytes", .integer(ProcessMemory.now().peakResident)),
      ("sounds", .array(log.sounds)), ("pictures", .array(log.pictures)),
    ])
  }
}
