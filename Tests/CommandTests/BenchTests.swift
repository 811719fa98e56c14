import Testing

/// What a user learns about the speed of a machine.
@Suite struct BenchTests {
  @Test func eachStageOfAModelIsTimed() throws {
    let model = try TinyModel.shared.model
    let stages = ["beats", "projector", "text", "unet_step", "vae_decode"]
    let arguments = ["bench", model, "--repetitions", "2", "--json"]
    let report = try parseObject(try succeed(.audiotoken, arguments).output)
    let found = try #require(report["stages"] as? [[String: Any]])
    #expect(found.map { $0["name"] as? String } == stages)
    for stage in found {
      let all = try #require(stage["seconds_all"] as? [Double])
      let median = try #require(stage["seconds"] as? Double)
      #expect(all.count == 2 && all.allSatisfy { $0 > 0 })
      #expect(median >= all.min() ?? 0 && median <= all.max() ?? 0)
      let products = try #require(stage["products"] as? Int)
      let work = try #require(stage["work"] as? [String: [String: Any]])
      #expect(work.values.compactMap { $0["products"] as? Int }.reduce(0, +) == products)
      let seconds = work.values.compactMap { $0["seconds"] as? Double }.reduce(0, +)
      #expect(seconds > 0 && seconds <= all.reduce(0, +) / 2)
    }
    let lines = try succeed(.audiotoken, ["bench", model, "--stage", "unet_step"]).output.split(separator: "\n")
    #expect(lines.first?.hasPrefix("unet_step: ") == true && lines.contains { $0.hasPrefix("  linear ") })
  }

  @Test(arguments: [["--stage", "unet_step"], ["--width", "128"], ["--height", "128"], ["--max-ram", "1G"]])
  func whatIsOfAModelIsRefusedWithoutOne(_ options: [String]) throws {
    let folder = try TemporaryFolder()
    try expectRefusal(
      .audiotoken, ["bench"] + options, exitCode: 64, naming: options[0], leavingEmpty: folder.path)
  }

  @Test func repetitionsBeyondReasonAreRefused() throws {
    let folder = try TemporaryFolder()
    try expectRefusal(
      .audiotoken, ["bench", "--repetitions", "0"], exitCode: 64, naming: "--repetitions is 0",
      leavingEmpty: folder.path)
  }
}
